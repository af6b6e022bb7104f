"""Reads lists of labels, text or CSV, one line for a record, an identity or a path, under a convention that is checked.

Fields are separated by tabs, semicolons, commas or white space. A line that cannot be understood is left out and
counted; more than one in a hundred are an error. With a line of column names the columns may come in any order. Without
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
from shard_tools.base.text import plural
from shard_tools.base.text_files import open_text
from shard_tools.recordio import Ints
from shard_tools.sources.conventions import FIRST, Tally, check_column, check_words
from shard_tools.sources.tabular import find_head, quoting
from shard_tools.sources.values import GENDERS, UNKNOWN, MeaninglessError, age_of, canonical

What = Literal["key", "path", "identity"]
WHATS: tuple[What, ...] = ("key", "path", "identity")
"""What a line may be about; of several columns the first of these counts."""
COLUMNS = {
    "key": "key", "identity": "identity", "path": "path", "file": "path", "image": "path",
    "gender": "gender", "sex": "gender", "male": "gender", "is_male": "gender", "female": "gender",
    "is_female": "gender", "age": "age", "race": "race",
}  # fmt: skip
"""Names that columns may have, and what is in them."""
CHUNK = 1 << 18  # bytes of a list that are Python strings at one time

Texts = Sequence[str]
Wrong = dict[int, str]
"""Rows of a piece of the list that cannot be understood, each with the reason."""
Find = Callable[[Texts, Wrong], Ints]
"""Turns what lines are about into places, int64 of the same length, -1 for what is not there; adds what is wrong."""
MAX_WRONG = 0.01
"""Fraction of lines that are left out if they cannot be understood; more of them are no slips."""

_BITS = {0: 1, 1: 2, -1: 4}
_GENDER_OF_BITS = np.array([-1, 0, 1, -1], np.int8)
_BAD = -2
_T = TypeVar("_T")


class _Memo(dict[str, _T]):
    """What a function makes of texts of which there are few, each asked for once; _BAD if it raises ValueError."""

    def __init__(self, function: Callable[[str], _T], bad: _T) -> None:
        super().__init__()
        self.function = function
        self.bad = bad
        self.reasons: dict[str, str] = {}

    def __missing__(self, text: str) -> _T:
        try:
            self[text] = self.function(text)
        except ValueError as error:
            self.reasons[text] = str(error)
            self[text] = self.bad
        return self[text]

    def of(self, texts: Texts, dtype: npt.DTypeLike, wrong: Wrong) -> npt.NDArray[Any]:
        """What the function makes of each text; adds the rows that it makes nothing of to `wrong`."""
        found: npt.NDArray[Any] = np.fromiter(map(self.__getitem__, texts), dtype, len(texts))
        if self.reasons:
            for row in np.flatnonzero(found == self.bad).tolist():
                wrong.setdefault(row, self.reasons[texts[row]])
        return found


@dataclass
class _Values:
    """What lines give to places, -1 where that is unknown; a place that gets different values is torn between them."""

    value: npt.NDArray[Any]
    is_torn: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, places: int, dtype: npt.DTypeLike) -> _Values:
        return cls(np.full(places, -1, dtype), np.zeros(places, np.bool_))

    def give(self, places: Ints, values: npt.NDArray[Any]) -> None:
        """Gives each place a value, whatever the order; a known one counts, not an unknown one."""
        known = values >= 0
        places, values = places[known], values[known]
        before = self.value[places]
        self.value[places] = values  # the last of a place that is here twice, from which the others differ
        differs = ((before >= 0) & (before != values)) | (self.value[places] != values)
        self.is_torn[places[differs]] = True

    def torn(self) -> Ints:
        """The places that got different values; they are unknown from now on."""
        self.value[self.is_torn] = -1
        return np.flatnonzero(self.is_torn)


class Convention:
    """Which value means male, which female and which ones unknown, as the user states it; an empty value is unknown.

    Without a statement only words are understood. Raises UserError for half a statement or one that is not clear.
    """

    def __init__(self, male: str | None, female: str | None, unknown: Sequence[str]) -> None:
        if (male is None) != (female is None):
            raise UserError("--male and --female must be given together: the values that mean male and female")
        self.values = ([male] if male is not None else [], [female] if female is not None else [])
        """The values that are stated to mean male, and female."""
        check_words(*self.values)
        self.stated = {canonical(value): gender for value, gender in ((female, 0), (male, 1)) if value is not None}
        values = [*self.stated, *map(canonical, unknown)]
        if len(self.stated) == 1 or len(set(values)) < len(values):
            raise UserError(f"--male, --female and --unknown-value must all be different, not {', '.join(values)}")
        self.known = self.stated or GENDERS
        self.codes = dict.fromkeys(UNKNOWN, -1) | self.known | dict.fromkeys(map(canonical, unknown), -1)

    def __str__(self) -> str:
        words = {0: "female", 1: "male", -1: "unknown"}
        codes = {value: code for value, code in self.codes.items() if value not in UNKNOWN}
        return ", ".join(f"{value} is {words[code]}" for value, code in codes.items()) if self.stated else "in words"

    def code(self, text: str) -> int:
        """0 female, 1 male, -1 unknown; raises ValueError for any other value."""
        try:
            return self.codes[canonical(text)]
        except KeyError:
            raise ValueError(f"the gender {text!r} was not stated: {self}") from None

    def has_all(self, values: Iterable[str]) -> bool:
        """Whether the stated values are among these."""
        return set(self.stated) <= set(map(canonical, values))

    def check_values(self, counts: Counter[str], where: str) -> None:
        """Raises UserError if values are not understood, or one that was stated does not occur."""
        found = ", ".join(f"{value} ({plural(count, 'time')})" for value, count in counts.most_common(10))
        wrong = [value for value in counts if canonical(value) not in self.codes]
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
    contradicted: dict[str, Ints]
    """Places of which lines give different genders, ages or races, by the label: unknown then."""
    strangers: int
    """Lines about what is not there."""
    stranger: str
    """The first of them."""
    wrong: int
    """Lines that cannot be understood and are left out."""
    first_wrong: str
    """The first of them, and why."""


def layout_of(path: Path, by: What | None) -> Layout:
    """The layout of a list by its first line; `by` is the role of its first column, or which of several to use.

    Raises UserError if that is not clear.
    """
    head = find_head(path, errors="surrogateescape")
    if not head.text:
        raise UserError(f"{path} is empty: it should have a line of labels for each record, identity or path")
    number, delimiter = head.line, None if head.separator == " " else head.separator
    first = head.text.split() if delimiter is None else next(csv.reader([head.text], delimiter=delimiter))
    names = [cell.strip().lower() for cell in first]
    while names and not names[-1]:  # empty columns at the end, of a spreadsheet
        names.pop()
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
            advice = "give the role of its first column as --by"
            if head.text.startswith("#"):
                advice += f", or remove line {number} if it is a comment"
            raise UserError(f"{path} has no line of column names: {advice}")
        if len(names) not in (2, 4):
            raise UserError(
                f"{path}: line {number} has {plural(len(names), 'column')}, not `{by} gender` or `{by} race gender "
                "age`: give it a first line of column names"
            )
        header, chosen = number - 1, by
        roles = (chosen, "gender") if len(names) == 2 else (chosen, "race", "gender", "age")
        names = list(roles)
    return Layout(path, delimiter, roles, names[roles.index("gender")], header, chosen)


def read_labels(layout: Layout, convention: Convention, find: Find, places: int) -> Labels:
    """Reads the list; `find` turns what its lines are about into numbers below `places`.

    Raises UserError that names the line and the value that cannot be understood.
    """
    check_column(layout.gender_name, *convention.values, str(layout.path))
    seen = np.zeros(places, np.uint8)
    age = _Values.of(places, np.float32) if "age" in layout.columns else None
    group = _Values.of(places, np.int16) if "race" in layout.columns else None
    groups: list[str] = []
    genders, ages = _Memo(convention.code, _BAD), _Memo(_years, float(_BAD))
    races = _Memo(lambda text: _number_of(text, groups, layout.path), _BAD)
    names = Tally()
    strangers, stranger, lines, faults, fault = 0, "", 0, 0, ""
    for numbers, columns, ragged in chunks(layout):
        about = columns[layout.what]
        wrong: Wrong = {}
        found = find(about, wrong)
        gender = genders.of(columns["gender"], np.int8, wrong)
        years = None if age is None else ages.of(columns["age"], np.float32, wrong)
        empty = [row for row in wrong if not any(texts[row].strip() for texts in columns.values())]
        sound = np.ones(len(about), np.bool_)
        sound[list(wrong)] = False
        strange = sound & (found < 0)
        if strange.any():
            stranger = stranger or about[int(np.argmax(strange))]
            strangers += int(np.count_nonzero(strange))
        there = sound & (found >= 0)
        for code, bit in _BITS.items():  # equal values go to equal places, so it does not matter who comes last
            seen[found[there & (gender == code)]] |= bit
        if age is not None and years is not None:
            age.give(found[there], years[there])
        if group is not None:
            group.give(found[there], races.of(columns["race"], np.int16, {})[there])
        if layout.what == "path" and not lines:
            names = names.adding(about[:FIRST], gender[:FIRST].tolist())
        ragged |= {numbers[row]: why for row, why in wrong.items() if row not in empty}
        if ragged and not fault:
            fault = "line {}: {}".format(*min(ragged.items()))
        faults += len(ragged)
        lines += len(about)
    if faults > MAX_WRONG * lines:
        if not convention.stated and genders.reasons:
            convention.check_values(_genders(layout), str(layout.path))
        raise UserError(f"{layout.path}: {fault}")
    if not convention.has_all(genders):
        convention.check_values(_genders(layout), str(layout.path))
    names.check("the paths", f"{layout.path}: its genders")
    both = seen & (_BITS[0] | _BITS[1])
    torn = {"gender": np.flatnonzero(both == (_BITS[0] | _BITS[1]))}
    torn |= {label: values.torn() for label, values in (("age", age), ("race", group)) if values}
    return Labels(
        gender=_GENDER_OF_BITS[both],
        age=None if age is None else age.value,
        group=None if group is None else group.value,
        groups=groups,
        listed=seen > 0,
        contradicted={label: which for label, which in torn.items() if len(which)},
        strangers=strangers,
        stranger=stranger,
        wrong=faults,
        first_wrong=fault,
    )


def chunks(layout: Layout) -> Iterator[tuple[Sequence[int], dict[str, Texts], dict[int, str]]]:
    """The list in pieces: the line number of each row, and the texts of each column, by what is in it.

    Lines that have not as many columns as the first are not among them, but apart: by number, and what is wrong. Raises
    UserError for a quote that is not closed on its line.
    """
    before, count = 0, len(layout.columns)
    with open_text(layout.path, errors="surrogateescape") as file:
        while lines := file.readlines(CHUNK):
            numbers: Sequence[int] = range(before + 1, before + 1 + len(lines))
            before += len(lines)
            if numbers[0] <= layout.header_lines or not all(map(str.strip, lines)):
                kept = [(n, line) for n, line in zip(numbers, lines, strict=True) if n > layout.header_lines]
                kept = [(n, line) for n, line in kept if line.strip()]
                numbers, lines = [n for n, _ in kept], [line for _, line in kept]
            rows = _rows(layout, numbers, lines)
            ragged = {}
            if any(len(row) != count for row in rows):
                rows = [row if any(map(str.strip, row[count:])) else row[:count] for row in rows]
                ragged = {
                    number: f"it has not {count} columns as the first line has: {line.strip()[:80]!r}"
                    for number, row, line in zip(numbers, rows, lines, strict=True)
                    if len(row) != count
                }
                numbers = [number for number in numbers if number not in ragged]
                rows = [row for row in rows if len(row) == count]
            texts = zip(*rows, strict=True) if rows else [()] * count
            yield numbers, dict(zip(layout.columns, texts, strict=True)), ragged


def _rows(layout: Layout, numbers: Sequence[int], lines: list[str]) -> list[list[str]]:
    if layout.delimiter is None:  # a path may have spaces, what follows it has none
        return [line.rsplit(None, len(layout.columns) - 1) for line in lines]
    reader = csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if reader.line_num > len(rows) + 1:
                raise csv.Error("a quote takes in the next line")
            rows.append(row)
    except csv.Error as error:
        raise UserError(quoting(f"line {numbers[len(rows)]} of {layout.path}", error)) from None
    return rows


def _genders(layout: Layout) -> Counter[str]:
    """How often each value of the gender column occurs."""
    counts: Counter[str] = Counter()
    for _, columns, _ in chunks(layout):
        counts.update(Counter(columns["gender"]))
    return counts


def _years(text: str) -> float:
    try:
        return age_of(text)
    except MeaninglessError as error:
        raise ValueError(str(error)) from None


def _number_of(text: str, groups: list[str], path: Path) -> int:
    """The number of a race in `groups`, a new one at their end; -1 for an unknown or negative one."""
    name = text.strip()
    if canonical(name) in UNKNOWN or name.startswith("-"):
        return -1
    if name not in groups:
        groups.append(name)
        if len(groups) > 1000:
            raise UserError(f"{path}: the column race has more than 1000 values: is it something else?")
    return groups.index(name)
