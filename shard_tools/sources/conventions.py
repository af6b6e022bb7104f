"""Whether what is stated to mean male can be right: by words, a column's name, other columns, and the images' names.

A number alone cannot be checked. What can be is: --male F, a column `male` in which 1 is female, and a column of words
or names such as male/1.jpg, MORPH's and UTKFace's, that contradict nearly all of the first rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES
from shard_tools.sources.tabular import TableFile
from shard_tools.sources.values import GENDERS, canonical, swapped_word

YES = ("1", "true", "yes", "t", "y")
NO = ("0", "-1", "false", "no", "n")
COLUMNS = {"male": 1, "is_male": 1, "female": 0, "is_female": 0}
"""Columns whose names state what yes means in them."""
MORPH = re.compile(r"\d+_\d+([MF])\d{2,3}\.", re.IGNORECASE)
UTKFACE = re.compile(r"\d{1,3}_([01])_[0-4]_\d{17}\b")
WORD = re.compile(r"(?<![a-z])(fe)?male(?![a-z])", re.IGNORECASE)
LETTERS = {"m", "f"}
"""What may as well be the size of clothes or a code, in a column that has one of them alone."""
FIRST = 2000
"""Rows that are looked at."""
ENOUGH = 20
"""Contradictions that are no accident if there are nine times as many as agreements."""


class Tally(NamedTuple):
    """How often something agreed with the labels, and how often it contradicted them."""

    agreed: int = 0
    contradicted: int = 0
    example: str = ""
    """The first text that contradicted."""

    def adding(self, texts: Iterable[str], genders: Iterable[int]) -> Tally:
        """With what these texts, words or names of images, say of these labels."""
        agreed, contradicted, example = self
        for text, gender in zip(texts, genders, strict=True):
            found = gender_of(text) if gender >= 0 else -1
            agreed += gender == found >= 0
            if gender != found >= 0:
                contradicted += 1
                example = example or text
        return Tally(agreed, contradicted, example)

    def check(self, where: str, genders: str) -> None:
        """Raises UserError if nearly all contradicted what is stated about `genders`."""
        if is_swapped(self.agreed, self.contradicted):
            raise UserError(
                f"{genders} contradict {where} in {self.contradicted} of the first {self.agreed + self.contradicted} "
                f"images, as in {self.example!r}: are male and female swapped?"
            )


def is_swapped(agreed: int, contradicted: int) -> bool:
    """Whether two sources of labels disagree so often that one has male and female swapped."""
    return contradicted >= ENOUGH and contradicted > 9 * agreed


def gender_of(text: str) -> int:
    """The gender that a word, or the name of an image by its directories or its file, is of; -1 if of none."""
    word = GENDERS.get(canonical(text))
    if word is not None or "." not in text:
        return -1 if word is None else word
    *directories, name = text.replace("\\", "/").split("/")
    for directory in reversed(directories):
        if directory.casefold() in GENDERS:
            return GENDERS[directory.casefold()]
    morph, utkface, found = MORPH.match(name), UTKFACE.match(name), WORD.search(name)
    if morph:
        return int(morph[1] in "Mm")
    if utkface:
        return 1 - int(utkface[1])
    return int(not found[1]) if found else -1


def check_words(male: Iterable[str], female: Iterable[str]) -> None:
    """Raises UserError if a word for one gender is stated to mean the other."""
    for gender, values in ((1, male), (0, female)):
        for value in values:
            if GENDERS.get(canonical(value), gender) != gender:
                raise swapped_word(value, gender)


def check_column(name: str, male: Iterable[str], female: Iterable[str], where: str) -> None:
    """Raises UserError if the values contradict the column's name, as 0 for male in a column `male` does."""
    gender = COLUMNS.get(name.strip().casefold())
    if gender is None:
        return
    stated = [(value, 1) for value in male] + [(value, 0) for value in female]
    for words, meant in ((YES, gender), (NO, 1 - gender)):
        for value, to_mean in stated:
            if canonical(value) in words and to_mean != meant:
                raise UserError(f"{where}: {value} in its column {name!r} cannot mean {CLASSES[to_mean]}")


def check_rows(table: TableFile, column: str, code: Callable[[str], int]) -> None:
    """Raises UserError if another column of the table contradicts its genders nearly always: words, or names of images.

    `code` turns a value of `column` into 0 female, 1 male; -1 is unknown or not understood.
    """
    rows: Sequence[Sequence[str]] = [row.values for row in islice(table.rows(table.columns), FIRST) if not row.problem]
    place = table.columns.index(column)
    genders = [code(row[place]) for row in rows]
    for other, name in enumerate(table.columns):
        if other != place:
            texts = [row[other] for row in rows]
            if len(LETTERS.intersection(map(canonical, texts))) == 1:  # a size, M, and no other gender
                texts = ["" if canonical(text) in LETTERS else text for text in texts]
            tally = Tally().adding(texts, genders)
            tally.check(f"its column {name!r}", f"{table.path}: the genders in the column {column!r}")
