"""The columns of a table: which has which label, and how their values become labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from shard_tools.base.documents import read_toml, shipped
from shard_tools.base.errors import UserError, unknown
from shard_tools.sources.conventions import check_column, check_words
from shard_tools.sources.tabular import own_spelling
from shard_tools.sources.values import (
    GENDERS,
    MAX_AGE,
    NUMBER,
    UNKNOWN,
    MeaninglessError,
    age_of,
    canonical,
    is_age,
    split_of,
    without_apostrophe,
)

BRACES = re.compile(r"\{([^{}]+)\}")
WHOLE = re.compile(r"(-?\d+)\.0*")
"""7.0, as pandas writes the number 7 in a column with gaps."""

Value = TypeVar("Value")


class Label(NamedTuple):
    """The labels of an image in a row, as in sources.Record."""

    gender: int = -1
    age: float = -1.0
    subject: str = ""
    group: str = ""
    split: str = ""
    rejected: str = ""


@dataclass(kw_only=True)
class Columns:
    """Which columns have which labels. A column is given by name, or as text with names in braces: {directory}/{file}.

    Besides a table's own columns there is `table`, its file's name without suffix, and there are those of `pattern`.
    """

    image: str = ""
    """Column of the image's name; image, if not given."""
    path: str = ""
    """Column of the image's file below --images, if it is not its name."""
    pattern: str = ""
    """Regular expression to find in the image's name; its named groups, (?P<age>[0-9]+), are columns too."""
    columns: tuple[str, ...] = ()
    """Names of all columns, for tables without a line of column names."""
    gender: str = ""
    """Column of the gender."""
    male: tuple[str, ...] = ()
    """Its values that mean male; words such as Male, m or man need not be given."""
    female: tuple[str, ...] = ()
    """Its values that mean female; words such as Female, f or woman need not be given."""
    unknown: tuple[str, ...] = ()
    """Values that mean unknown in any column; empty ones and words such as unknown need not be given."""
    age: str = ""
    """Column of the age: a number, or a bin such as 20-29, which becomes its middle, 24.5. An image whose age is no
    such thing, nor a word for unknown, is left out, whatever its gender."""
    ages: dict[str, str] = field(default_factory=dict)
    """Values of that column that are neither, such as 60+, each followed by its age."""
    subject: str = ""
    """Column of the subject; all images of a subject go to one split."""
    group: str = ""
    """Column of the race, or another group."""
    groups: dict[str, str] = field(default_factory=dict)
    """Values of that column, each followed by its name; without any, they are names."""
    split: str = ""
    """Column of the source's own split."""
    splits: dict[str, str] = field(default_factory=dict)
    """Values of that column, each followed by train, val or test; words such as training need not be given."""
    optional: tuple[str, ...] = ()
    """Which of age, subject, group and split may have no column; they are unknown then."""

    def labels(self) -> dict[str, str]:
        """The columns of the labels that are stated, by the label's name."""
        named = {name: getattr(self, name) for name in ("gender", "age", "subject", "group", "split")}
        return {label: column for label, column in named.items() if column}

    def describe(self) -> str:
        """The columns of the labels and the meaning of their values: one line for the manifest."""
        stated = {
            "gender": [*(f"{v} is female" for v in self.female), *(f"{v} is male" for v in self.male)] or ["in words"],
            "age": [f"{value} is {age}" for value, age in self.ages.items()],
            "group": [f"{value} is {name}" for value, name in self.groups.items()],
            "split": [f"{value} is {name}" for value, name in self.splits.items()],
        }
        stated["gender"].append("turned to 0 female 1 male")
        meanings = {label: ", ".join(stated.get(label, [])) for label in self.labels()}
        parts = [
            f"{label} from {self.labels()[label]}" + (f" ({text})" if text else "") for label, text in meanings.items()
        ]
        if self.pattern:
            parts.append(f"names as {self.pattern}")
        return "; ".join(parts)


Headers = Mapping[str, tuple[str, ...]]
"""Names of the columns of tables without a line of column names, by a pattern of the tables' file names."""


class Stated(NamedTuple):
    """What options and a mapping say together."""

    columns: Columns
    headers: Headers
    expects: str
    """The tables that the mapping is for; empty if it needs none or does not say."""


def stated(options: Columns, mapping: Path | None) -> Stated:
    """The options, and for those not given the values of the mapping: the name of a ready one, or a TOML file.

    Raises UserError if there is no such mapping, or its keys are not those of `Columns`.
    """
    values, headers, expects = _load(mapping) if mapping else ({}, {}, "")
    defaults = Columns()
    given = {f.name: getattr(options, f.name) for f in fields(Columns)}
    values |= {name: value for name, value in given.items() if value != getattr(defaults, name)}
    columns = Columns(**values)
    if options.columns:
        headers = {}
    _check(columns)
    return Stated(columns, headers, expects)


def _load(mapping: Path) -> tuple[dict[str, Any], Headers, str]:
    """The values of the fields of `Columns` that a mapping sets, its headers, and the tables that it is for."""
    if mapping.suffix == ".toml":
        toml = read_toml(mapping)
    else:
        ready = shipped(Path(__file__).parent / "mappings")
        if str(mapping) not in ready:
            raise unknown("mapping", str(mapping), list(ready))
        toml = read_toml(ready[str(mapping)], f"mapping {mapping}")
    content = dict(toml.content)
    expects = str(content.pop("expects", ""))
    headers = content.pop("columns") if isinstance(content.get("columns"), dict) else {}
    defaults = Columns()
    texts = {key: _texts(value, listed=type(getattr(defaults, key, "")) is tuple) for key, value in content.items()}
    values = replace(toml, content=texts).values(Columns)
    return values, {name: tuple(_texts(header)) for name, header in headers.items()}, expects


def _texts(value: Any, listed: bool = True) -> Any:
    """A value of a mapping with its numbers as text, which columns are compared by; one value as a list if `listed`."""
    if isinstance(value, dict):
        return {name: str(meaning) for name, meaning in value.items()}
    if isinstance(value, list):
        return list(map(str, value))
    return [str(value)] if listed else value


def _check(columns: Columns) -> None:
    """Raises UserError for what no table can make sense of."""
    genders = [set(map(canonical, values)) for values in (columns.male, columns.female, columns.unknown)]
    for value in set().union(*genders):
        if sum(value in values for values in genders) > 1:
            raise UserError(f"{value!r} is stated to be more than one of male, female and unknown: which is it?")
    check_words(columns.male, columns.female)
    for value, name in columns.splits.items():
        if name not in ("train", "val", "test"):
            raise UserError(f"--splits turns {value!r} into {name!r}: it must be train, val or test")
    for value, age in columns.ages.items():
        if not NUMBER.fullmatch(age) or not is_age(float(age)):
            raise UserError(f"--ages turns {value!r} into {age!r}: it must be 0 to {MAX_AGE} years")
    for name in columns.optional:
        if name not in ("age", "subject", "group", "split"):
            raise unknown("label in --optional", name, ["age", "subject", "group", "split"])
    try:
        re.compile(columns.pattern)
    except re.error as error:
        raise UserError(f"--pattern {columns.pattern!r} is no regular expression: {error}") from None


class Labeller:
    """Turns the rows of one table into the images' files and labels."""

    def __init__(self, columns: Columns, table: str, known: Sequence[str], note: str = "") -> None:
        """`table` is a file's name and `known` are its columns. Labels whose columns are not among them stay unknown.

        Raises UserError, which ends with `note`, if those of the image are not.
        """
        self._pattern = re.compile(columns.pattern) if columns.pattern else None
        groups = tuple(self._pattern.groupindex) if self._pattern else ()
        self.known = tuple(dict.fromkeys((*known, "table", *groups)))
        image = spelled(columns.image or "image", self.known)
        stated = {label: spelled(column, self.known) for label, column in columns.labels().items()}
        present = {label: column for label, column in stated.items() if not missing(column, self.known)}
        self.gender = present.get("gender", "")
        """The column of the gender as the table spells it; empty if it has none."""
        check_column(self.gender, columns.male, columns.female, table)
        self.labels = frozenset(present)
        """Labels that this table has columns for."""
        specs = {"image": image, "path": spelled(columns.path, self.known) or image, **present}
        for spec in specs.values():
            if missing(spec, self.known):
                raise UserError(f"{unknown(f'column of {table}', missing(spec, self.known)[0], self.known)}{note}")
        used = {name for spec in specs.values() for name in names_in(spec, self.known)} - set(groups)
        self.wanted = tuple(name for name in known if name in used)
        """Columns to read; a row has their values in this order."""
        self._constant = (Path(table).stem,)
        self._groups = groups
        order = (*self.wanted, "table", *groups)
        position = {name: order.index(name) for name in order}
        if self._pattern and set(names_in(image, self.known)) & set(groups):
            raise UserError(f"the image's name {image!r} is what --pattern is found in: it cannot need its groups")
        self._image = _getter(image, position)
        self._path = _getter(specs["path"], position)
        nothing = {*UNKNOWN, *map(canonical, columns.unknown)}
        self._get = {
            label: _getter(column, position, nothing if label in ("subject", "group") else None)
            for label, column in present.items()
        }
        self._values: dict[str, Callable[[str], Any]] = {
            "gender": _gender_of(columns),
            "age": _age_of(columns),
            "subject": _name_of({}, columns.unknown, "subject"),
            "group": _name_of(columns.groups, columns.unknown, "group"),
            "split": _split_of(columns),
        }
        self.genders: Counter[str] = Counter()
        """Number of rows of each value of the gender column, for the first ten values."""

    def gender_of(self, text: str) -> int:
        """The gender that a value of the gender column means, -1 if it is unknown or not understood."""
        try:
            return int(self._values["gender"](text))
        except MeaninglessError:
            return -1

    def __call__(self, values: tuple[str, ...]) -> tuple[str, Label]:
        """File and label of a row with the values of the columns `wanted`; or why it is rejected."""
        row = values + self._constant
        image = self._image(row)
        if self._pattern:
            match = self._pattern.search(image)
            if not match:
                return image, Label(rejected=f"its name does not match {self._pattern.pattern}")
            row += tuple([match[name] or "" for name in self._groups])
        labels: dict[str, Any] = {}
        try:
            for label, get in self._get.items():
                text = get(row)
                if label == "gender" and (text in self.genders or len(self.genders) < 10):
                    self.genders[text] += 1
                labels[label] = self._values[label](text)
        except MeaninglessError as error:
            labels["rejected"] = str(error)
        return self._path(row), Label(**labels)


def spelled(spec: str, known: Sequence[str]) -> str:
    """`spec` with the columns that it names spelled as the known ones, from which they may differ in case."""
    if spec in known or not BRACES.search(spec):
        return own_spelling(spec, known)
    return BRACES.sub(lambda name: f"{{{own_spelling(name[1], known)}}}", spec)


def missing(spec: str, known: Sequence[str]) -> list[str]:
    """The columns that `spec` names and that are not known."""
    return [name for name in names_in(spec, known) if name not in known]


def names_in(spec: str, known: Sequence[str]) -> list[str]:
    """The columns that `spec` names: itself, or those in braces."""
    return [spec] if spec in known else BRACES.findall(spec) or [spec]


def _getter(
    spec: str, position: Mapping[str, int], nothing: Container[str] | None = None
) -> Callable[[Sequence[str]], str]:
    """Takes the text that `spec` describes from a row whose columns have these positions.

    With words for `nothing` it is a name, of which several columns are parts: a whole number is spelled in one way, and
    the name is empty if none of the parts is known.
    """
    if spec in position:
        return itemgetter(position[spec])
    pieces = BRACES.split(spec)  # text, name, text, name, ..., text
    literal = pieces[::2]
    at = [position[name] for name in pieces[1::2]]

    def get(row: Sequence[str]) -> str:
        return literal[0] + "".join([row[i] + text for i, text in zip(at, literal[1:], strict=True)])

    if nothing is None or not at:
        return get

    def get_name(row: Sequence[str]) -> str:
        parts = [row[i] for i in at]
        if all(canonical(part) in nothing for part in parts):
            return ""
        return literal[0] + "".join([_whole(part) + text for part, text in zip(parts, literal[1:], strict=True)])

    return get_name


def _whole(text: str) -> str:
    """A name, and a whole number as 7, not 7.0; not by way of a float, which has no more than 16 digits."""
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


# The functions below raise MeaninglessError. A column has few values, so most are repeated.


def _gender_of(columns: Columns) -> Callable[[str], int]:
    meaning = dict.fromkeys(map(canonical, (*UNKNOWN, *columns.unknown)), -1)
    meaning |= GENDERS
    meaning |= dict.fromkeys(map(canonical, columns.female), 0) | dict.fromkeys(map(canonical, columns.male), 1)

    @lru_cache(1000)
    def gender(text: str) -> int:
        if canonical(text) not in meaning:
            raise MeaninglessError(f"its gender {text!r} is not stated to be male, female or unknown, as by --male 1")
        return meaning[canonical(text)]

    return gender


def _age_of(columns: Columns) -> Callable[[str], float]:
    nothing = set(map(canonical, columns.unknown))
    stated = {canonical(value): float(age) for value, age in columns.ages.items()}

    @lru_cache(1000)
    def age(text: str) -> float:
        value = canonical(text)
        if value in stated:
            return stated[value]
        return -1.0 if value in nothing else age_of(text)

    return age


def _name_of(names: Mapping[str, str], nothing: Sequence[str], label: str) -> Callable[[str], str]:
    unstated = {*UNKNOWN, *map(canonical, nothing)}
    meaning = {canonical(value): name for value, name in names.items()}

    @lru_cache(1000)
    def name(text: str) -> str:
        bare = without_apostrophe(text)
        value = canonical(bare)
        if value in meaning:
            return meaning[value]
        if bare != text:  # a name, also if it is - alone
            return bare
        if value in unstated:
            return ""
        if meaning:
            raise MeaninglessError(f"its {label} {text!r} is not one that --{label}s has a meaning for")
        return _whole(text)

    return name


def _split_of(columns: Columns) -> Callable[[str], str]:
    stated = {canonical(value): split for value, split in columns.splits.items()}
    unstated = {*UNKNOWN, *map(canonical, columns.unknown)}

    @lru_cache(1000)
    def split(text: str) -> str:
        value = canonical(text)
        found = stated.get(value) or split_of(text)
        if not found and value not in unstated:
            raise MeaninglessError(f"its split {text!r} is not one that --splits has a meaning for")
        return found

    return split
