"""The labels of MORPH's pictures: from their names, from MORPH's CSV, and from corrections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from shard_tools.base.errors import UserError, unknown
from shard_tools.sources.tabular import open_table
from shard_tools.sources.values import GENDERS, UNKNOWN, UNKNOWN_AGES, MeaninglessError, age_of, canonical, is_age

NAME = re.compile(r"(?P<subject>\d+)_(?P<picture>\d+)(?P<gender>[MF])(?P<age>\d{2,3})\.", re.IGNORECASE)
RACES = {"B": "Black", "W": "White", "A": "Asian", "H": "Hispanic", "O": "Other"}
FIXABLE = ("gender", "race", "dob", "age")
US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?:[ T].*)?")
ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T].*)?")


class Picture(NamedTuple):
    """The labels of one picture; None where unknown."""

    subject: str | None = None
    gender: int | None = None
    race: str | None = None
    age: float | None = None
    dob: date | None = None
    doa: date | None = None
    """When it was taken."""
    problems: tuple[tuple[str, str], ...] = ()
    """Labels that cannot be had, each with the reason; a correction of the label removes it."""


def file_of(name: str) -> str:
    """The file's name in a path."""
    return name.rsplit("/", 1)[-1]


def from_name(name: str) -> Picture:
    """The labels in a picture's file name; none if it does not follow MORPH's convention."""
    match = NAME.match(file_of(name))
    if not match:
        return Picture()
    age, wrong = _value_or_reason("age", match["age"])
    problems = (("age", wrong),) if wrong else ()
    return Picture(subject_of(match["subject"]), GENDERS[match["gender"].lower()], age=age, problems=problems)


def photo_of(name: str) -> str:
    """The identifier of a photo in names and CSV files: its file's name without directory and suffix, in lower case."""
    return file_of(name).split(".", 1)[0].lower()


def subject_of(text: str) -> str:
    """A subject's number with six digits: spreadsheets drop the zeros in front, and make 65649 of 65649.0."""
    number = canonical(text)
    return number.zfill(6) if number.isdigit() else text


def read_csv(path: Path) -> tuple[dict[str, Picture], list[str]]:
    """The labels in MORPH's CSV, by photo, and remarks on values that cannot be read.

    Raises UserError if there is no such file or no column photo; other columns may be missing.
    """
    listed: dict[str, Picture] = {}
    dates: list[str] = []
    rows = list(_rows(path, ("photo",), ("id_num", "gender", "race", "age", "dob", "doa")))
    days_first = _days_first(row.get(field, "") for _, row, _ in rows for field in ("dob", "doa"))
    for line, row, problem in rows:
        known: dict[str, Any] = {"subject": subject_of(row.get("id_num", "")) or None}
        problems = [("row", problem)] if problem else []
        for field in ("gender", "race", "age", "dob", "doa"):
            known[field], wrong = _value_or_reason(field, row.get(field, ""), days_first)
            if wrong and field in ("dob", "doa"):  # they are no labels, and the age may be had without them
                dates.append(f"{field} {row[field]!r} in line {line}")
            elif wrong:
                problems.append((field, f"line {line} of {path.name}: {wrong}"))
        picture = aged(Picture(**known, problems=tuple(problems)))
        if listed.setdefault(photo_of(row["photo"]), picture) != picture:
            twice = (("row", f"{path.name} lists it twice with different values"),)
            listed[photo_of(row["photo"])] = picture._replace(problems=twice)
    remarks = [f"dates of {path.name} are taken as day/month/year, as some can be nothing else"] if days_first else []
    if dates:
        remarks.append(f"dates of {path.name} that cannot be read: {len(dates)}, the first {dates[0]}")
    return listed, remarks


def _days_first(texts: Iterable[str]) -> bool:
    """Whether dates with slashes are day/month/year, which MORPH's are not: nearly all that can be one alone are it."""
    days, months = 0, 0
    for found in map(US_DATE.fullmatch, texts):
        days += found is not None and int(found[1]) > 12
        months += found is not None and int(found[2]) > 12
    return days > 9 * months


def read_fixes(path: Path, known: Mapping[str, set[str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The values to set, by ("subject" or "photo", which one).

    `known` has the subjects and the photos that there are. Raises UserError with the line of a row that names none of
    them, sets nothing, sets what another has set, or has a value that cannot be read.
    """
    fixes: dict[tuple[str, str], dict[str, Any]] = {}
    for line, row, problem in _rows(path, (), ("subject", "photo", *FIXABLE, "note"), strict=True):
        where = f"line {line} of {path}"
        if problem:
            raise UserError(problem)
        kind = "photo" if row.get("photo") else "subject"
        text = row.get(kind, "")
        key = photo_of(text) if kind == "photo" else subject_of(text)
        if key not in known[kind]:
            raise UserError(f"{where}: " + (f"no picture is of {kind} {text!r}" if text else "no subject and no photo"))
        changes = fixes.setdefault((kind, key), {})
        given = [field for field in FIXABLE if row.get(field)]
        if not given:
            raise UserError(f"{where} sets nothing: give one of {', '.join(FIXABLE)}")
        for field in given:
            if field in changes:
                raise UserError(f"{where} sets the {field} of {kind} {text} once more: remove one of the rows")
            changes[field], wrong = _value_or_reason(field, row[field])
            if wrong:
                raise UserError(f"{where}: {wrong}")
    return fixes


def corrected(picture: Picture, changes: Mapping[str, Any]) -> Picture:
    """The picture with these values. A new date of birth gives a new age if it is known when the picture was taken."""
    if not changes:
        return picture
    if "dob" in changes and picture.doa:
        changes = {"age": None, **changes}
    problems = tuple(problem for problem in picture.problems if problem[0] not in changes)
    return aged(picture._replace(**changes, problems=problems))


def aged(picture: Picture) -> Picture:
    """The picture with the age in whole years that its dates give, if it has none."""
    dob, doa = picture.dob, picture.doa
    if picture.age is not None or not dob or not doa or any(field == "age" for field, _ in picture.problems):
        return picture
    years = doa.year - dob.year - ((doa.month, doa.day) < (dob.month, dob.day))
    if not is_age(years):
        problem = ("age", f"it was taken on {doa}, and its subject was born on {dob}")
        return picture._replace(problems=(*picture.problems, problem))
    return picture._replace(age=float(years))


@lru_cache(50_000)
def _value_or_reason(field: str, text: str, days_first: bool = False) -> tuple[Any, str]:
    """The value of gender, race, age, dob or doa that a CSV spells so, None if unknown; or why it is none."""
    if canonical(text) in (UNKNOWN_AGES if field == "age" else UNKNOWN):
        return None, ""
    if field == "gender":
        gender = GENDERS.get(text.lower())
        return gender, f"its gender {text!r} is not F or M" if gender is None else ""
    if field == "race":
        race = RACES.get(text.upper(), text.title())
        return (race, "") if race in RACES.values() else (None, f"its race {text!r} is not one of {', '.join(RACES)}")
    if field == "age":
        try:
            return age_of(text), ""
        except MeaninglessError as error:
            return None, str(error)
    us, iso = US_DATE.fullmatch(text), ISO_DATE.fullmatch(text)
    try:
        if us:
            month, day = (us[2], us[1]) if days_first else (us[1], us[2])
            return date(int(us[3]), int(month), int(day)), ""
        if iso:
            return date(int(iso[1]), int(iso[2]), int(iso[3])), ""
    except ValueError:  # there is no such day
        pass
    return None, f"its {field} {text!r} is no date such as 12/31/1949 or 1949-12-31"


def _rows(
    path: Path, needed: Sequence[str], optional: Sequence[str], strict: bool = False
) -> Iterator[tuple[int, dict[str, str], str]]:
    """Line, values by column in lower case, and problem of each row; `strict` refuses other columns."""
    table = open_table(path)
    spelled = {name.lower(): name for name in table.columns}
    for name in needed:
        if name not in spelled:
            raise UserError(f"{unknown(f'column of {path}', name, table.columns)}{table.comment_note}")
    for name in spelled if strict else ():
        if name not in optional:
            raise unknown(f"column in {path}", name, optional)
    wanted = [name for name in (*needed, *optional) if name in spelled]
    for line, values, problem in table.rows([spelled[name] for name in wanted]):
        yield line, dict(zip(wanted, values, strict=True)), problem
