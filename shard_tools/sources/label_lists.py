"""Reads lists of labels, text or CSV, one line for a record, an identity or a path, under a convention that is checked.

Fields are parted by tabs, commas or white space. With a line of column names the columns may come in any order. Without
one they are `what gender`, or `what race gender age` as in Notre Dame's lists
(https://github.com/vitoralbiero/face_analysis_pytorch).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.recordio import Ints
from shard_tools.sources.folders import GENDERS

What = Literal["key", "path", "identity"]
WHATS: tuple[What, ...] = ("key", "path", "identity")
"""What a line may be about; of several columns the first of these counts."""
COLUMNS = {
    "key": "key", "identity": "identity", "path": "path", "file": "path", "image": "path",
    "gender": "gender", "sex": "gender", "male": "gender", "is_male": "gender", "female": "gender",
    "is_female": "gender", "age": "age", "race": "race",
}  # fmt: skip
"""Names that columns may have, and what is in them."""
YES = ("1", "true", "yes", "t", "y")
CHUNK = 1 << 18  # bytes of a list that are Python strings at one time

Texts = Sequence[str]
Find = Callable[[Texts], Ints]
"""Turns what lines are about into places, int64 of the same length, -1 for what is not there; may raise RowError."""

_BITS = {0: 1, 1: 2, -1: 4}
_GENDER_OF_BITS = np.array([-1, 0, 1, -1], np.int8)
_T = TypeVar("_T")


class RowError(Exception):
    """Why a row of a piece of the list cannot be understood, and which."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


class _Memo(dict[str, _T]):
    """What a function makes of texts of which there are few, each asked for once."""

    def __init__(self, function: Callable[[str], _T]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, text: str) -> _T:
        self[text] = self.function(text)
        return self[text]

    def of(self, texts: Texts, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """What the function makes of each text; RowError for the first of which it makes a ValueError."""
        try:
            return np.fromiter(map(self.__getitem__, texts), dtype, len(texts))
        except ValueError as error:
            raise RowError(next(row for row, text in enumerate(texts) if text not in self), str(error)) from None


def plain(text: str) -> str:
    """A value as it is compared: in lower case, a number in its shortest form (1.000000 is 1)."""
    text = text.strip().lower()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


class Convention:
    """Which value means male, which female and which ones unknown, as the user states it; an empty value is unknown.

    Without a statement only words are understood. Raises UserError for half a statement or one that is not clear.
    """

    def __init__(self, male: str | None, female: str | None, unknown: Sequence[str]) -> None:
        if (male is None) != (female is None):
            raise UserError("--male and --female must be given together: the values that mean male and female")
        self.stated = {plain(value): gender for value, gender in ((female, 0), (male, 1)) if value is not None}
        values = [*self.stated, *map(plain, unknown)]
        if len(self.stated) == 1 or len(set(values)) < len(values):
            raise UserError(f"--male, --female and --unknown-value must all be different, not {', '.join(values)}")
        self.known = self.stated or GENDERS
        self.codes = {**self.known, "": -1, **dict.fromkeys(map(plain, unknown), -1)}

    def __str__(self) -> str:
        words = {0: "female", 1: "male", -1: "unknown"}
        codes = {value: code for value, code in self.codes.items() if value}
        return ", ".join(f"{value} is {words[code]}" for value, code in codes.items()) if self.stated else "in words"

    def check_column(self, name: str, where: Path) -> None:
        """Raises UserError if the statement contradicts the column's name, as 0 is male in a column `male` does."""
        gender = {"male": 1, "is_male": 1, "female": 0, "is_female": 0}.get(name)
        if gender is not None and any(value in YES and code != gender for value, code in self.stated.items()):
            yes = next(value for value in self.stated if value in YES)
            raise UserError(f"{where}: {yes} in its column {name!r} cannot mean {'female' if gender else 'male'}")

    def code(self, text: str) -> int:
        """0 female, 1 male, -1 unknown; raises ValueError for any other value."""
        try:
            return self.codes[plain(text)]
        except KeyError:
            raise ValueError(f"the gender {text!r} was not stated: {self}") from None

    def has_all(self, values: Iterable[str]) -> bool:
        """Whether the stated values are among these."""
        return set(self.stated) <= set(map(plain, values))

    def check_values(self, counts: Counter[str], where: str) -> None:
        """Raises UserError if values are not understood, or one that was stated does not occur."""
        found = ", ".join(f"{value} ({count} times)" for value, count in counts.most_common(10))
        wrong = [value for value in counts if plain(value) not in self.codes]
        if wrong and not self.stated:
            raise UserError(
                f"{where} has the genders {found}: state what they mean, for example "
                "--male 1 --female 0 --unknown-value -1"
            )
        if wrong:
            raise UserError(f"{where} has the gender {wrong[0]!r}, which was not stated: {self}")
        if not self.has_all(counts):
            raise UserError(f"{where} has the genders {found} only, not both that were stated: {self}")


class Layout(NamedTuple):
    """How the lines of a list are laid out."""

    path: Path
    delimiter: str | None
    """None is any white space."""
    columns: tuple[str, ...]
    """What is in each column: a value of COLUMNS, or empty."""
    gender_name: str
    """The gender column's own name."""
    header_lines: int
    what: What


@dataclass(frozen=True)
class Labels:
    """The labels of each place in a list, a place being an image or an identity."""

    gender: npt.NDArray[np.int8]
    """0 female, 1 male, -1 unknown, not listed or contradicted; shape (places,)."""
    age: npt.NDArray[np.float32] | None
    """Years, -1 unknown; shape (places,)."""
    group: npt.NDArray[np.int16] | None
    """Number in `groups`, -1 unknown; shape (places,)."""
    groups: list[str]
    listed: npt.NDArray[np.bool_]
    """Whether a line is about the place; shape (places,)."""
    contradicted: Ints
    """Places that are called female on one line and male on another."""
    strangers: int
    """Lines about what is not there."""
    stranger: str
    """The first of them."""


def layout_of(path: Path, by: What | None) -> Layout:
    """The layout of a list by its first line; `by` is the role of its first column, or which of several to use.

    Raises UserError if that is not clear.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        number, first = next(((n, line) for n, line in enumerate(file, 1) if line.strip()), (0, ""))
    if not first:
        raise UserError(f"{path} is empty: it should have a line of labels for each record, identity or path")
    delimiter = next((sign for sign in "\t," if sign in first), None)
    names = [cell.strip().lower() for cell in (first.split(delimiter))]
    roles = tuple(COLUMNS.get(name, "") for name in names)
    present = [what for what in WHATS if what in roles]
    if present:
        if by not in (None, *present):
            raise UserError(f"{path} has no column {by!r}: its columns are {', '.join(names)}")
        twice = [role for role in set(roles) if role and roles.count(role) > 1]
        if "gender" not in roles or twice:
            wanted = f"one column {twice[0]!r}" if twice else "a column gender, sex, male or female"
            raise UserError(f"{path} needs {wanted}: its columns are {', '.join(names)}")
        header, chosen = number, by or present[0]
    else:
        if by is None:
            raise UserError(f"{path} has no line of column names: give the role of its first column as --by")
        if len(names) not in (2, 4):
            raise UserError(
                f"{path}: line {number} has {len(names)} columns, not `{by} gender` or `{by} race gender age`: "
                "give it a first line of column names"
            )
        header, chosen = 0, by
        roles = (chosen, "gender") if len(names) == 2 else (chosen, "race", "gender", "age")
        names = list(roles)
    return Layout(path, delimiter, roles, names[roles.index("gender")], header, chosen)


def read_labels(layout: Layout, convention: Convention, find: Find, places: int) -> Labels:
    """Reads the list; `find` turns what its lines are about into numbers below `places`.

    Raises UserError that names the line and the value that cannot be understood.
    """
    convention.check_column(layout.gender_name, layout.path)
    seen = np.zeros(places, np.uint8)
    age = np.full(places, -1, np.float32) if "age" in layout.columns else None
    group = np.full(places, -1, np.int16) if "race" in layout.columns else None
    groups: list[str] = []
    genders, ages, races = _Memo(convention.code), _Memo(_years), _Memo(lambda text: _number_of(text, groups))
    strangers, stranger = 0, ""
    for numbers, columns in chunks(layout):
        about = columns[layout.what]
        try:
            found = find(about)
            gender = genders.of(columns["gender"], np.int8)
            there = found >= 0
            if not there.all():
                stranger = stranger or about[int(np.argmin(there))]
                strangers += len(about) - int(np.count_nonzero(there))
            for code, bit in _BITS.items():  # equal values go to equal places, so it does not matter who comes last
                seen[found[there & (gender == code)]] |= bit
            if age is not None:
                age[found[there]] = ages.of(columns["age"], np.float32)[there]
            if group is not None:
                group[found[there]] = races.of(columns["race"], np.int16)[there]
        except RowError as error:
            if not convention.stated:
                convention.check_values(_genders(layout), str(layout.path))
            raise UserError(f"{layout.path}: line {numbers[error.row]}: {error}") from None
    if not convention.has_all(genders):
        convention.check_values(_genders(layout), str(layout.path))
    both = seen & (_BITS[0] | _BITS[1])
    return Labels(
        gender=_GENDER_OF_BITS[both],
        age=age,
        group=group,
        groups=groups,
        listed=seen > 0,
        contradicted=np.flatnonzero(both == (_BITS[0] | _BITS[1])),
        strangers=strangers,
        stranger=stranger,
    )


def chunks(layout: Layout) -> Iterator[tuple[Sequence[int], dict[str, Texts]]]:
    """The list in pieces: the line number of each row, and the texts of each column, by what is in it.

    Raises UserError for a line that has not as many columns as the first.
    """
    before = 0
    with layout.path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        while lines := file.readlines(CHUNK):
            numbers: Sequence[int] = range(before + 1, before + 1 + len(lines))
            before += len(lines)
            if numbers[0] <= layout.header_lines or not all(map(str.strip, lines)):
                kept = [(n, line) for n, line in zip(numbers, lines, strict=True) if n > layout.header_lines]
                kept = [(n, line) for n, line in kept if line.strip()]
                numbers, lines = [n for n, _ in kept], [line for _, line in kept]
            rows = _rows(layout, lines)
            wrong = next((i for i, row in enumerate(rows) if len(row) != len(layout.columns)), None)
            if wrong is not None or len(rows) != len(lines):
                number = numbers[wrong or 0]
                raise UserError(
                    f"{layout.path}: line {number} has not {len(layout.columns)} columns as the first line has: "
                    f"{lines[wrong or 0].strip()[:80]!r}"
                )
            if rows:
                yield numbers, dict(zip(layout.columns, zip(*rows, strict=True), strict=True))


def _rows(layout: Layout, lines: list[str]) -> list[list[str]]:
    if layout.delimiter is None:  # a path may have spaces, what follows it has none
        return [line.rsplit(None, len(layout.columns) - 1) for line in lines]
    try:
        return list(csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{layout.path} is not a table of text: {error}") from None


def _genders(layout: Layout) -> Counter[str]:
    """How often each value of the gender column occurs."""
    counts: Counter[str] = Counter()
    for _, columns in chunks(layout):
        counts.update(Counter(columns["gender"]))
    return counts


def _years(text: str) -> float:
    try:
        age = float(text.strip() or -1)
    except ValueError:
        raise ValueError(f"the age {text!r} is not a number") from None
    return age if age >= 0 else -1.0


def _number_of(text: str, groups: list[str]) -> int:
    """The number of a race in `groups`, a new one at their end; -1 for an empty or negative one."""
    name = text.strip()
    if not name or name.startswith("-"):
        return -1
    if name not in groups:
        groups.append(name)
        if len(groups) > 1000:
            raise ValueError("the column race has more than 1000 values: is it something else?")
    return groups.index(name)
