"""MORPH: labels in file names, `065649_01M46.JPG` = subject, picture number, M or F, age; and more in its CSV."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.sources import ImageDirectory, Record
from shard_tools.sources.conventions import is_swapped
from shard_tools.sources.morph_pictures import (
    FIXABLE,
    RACES,
    Picture,
    corrected,
    file_of,
    from_name,
    photo_of,
    read_csv,
    read_fixes,
)

SHOWN = 3
"""Pictures that a remark names."""


@dataclass(kw_only=True)
class Morph(ImageDirectory):
    """Packs MORPH's images; all images of a subject go to one split."""

    csv: Path | None = None
    """MORPH's table with photo, id_num, gender, race, age, dob, doa; its labels override those of the names."""
    fixes: Path | None = None
    """Corrections as CSV: a column subject or photo, any of gender, race, dob and age to set, and perhaps a note."""

    @property
    def convention(self) -> str:
        parts = ["MORPH names subject_picture{M|F}age: F is 0 female, M is 1 male"]
        if self.csv:
            races = ", ".join(f"{code} {race}" for code, race in RACES.items())
            parts.append(f"the CSV's labels before the names', races {races}")
        if self.fixes:
            parts.append("with corrections")
        return "; ".join(parts)

    @property
    def numbering(self) -> str:
        return "morph"

    def records(self) -> Iterator[Record]:
        names = self.files()
        pictures = [from_name(name) for name in names]
        if self.csv:
            pictures = self._merged(self.csv, names, pictures)
        if self.fixes:
            pictures = self._fixed(self.fixes, names, pictures)
        self._remarks += disagreements(names, pictures)
        for row, (name, picture) in enumerate(zip(names, pictures, strict=True)):
            if picture.problems:
                yield Record(row=row, name=name, rejected=picture.problems[0][1])
            elif picture.subject is None or picture.gender is None:
                lacking = "subject" if picture.subject is None else "gender"
                reason = f"neither its name nor the CSV has its {lacking}"
                yield Record(
                    row=row, name=name, rejected=reason if self.csv else "its name is not subject_picture{M|F}age"
                )
            else:
                yield Record(
                    row=row,
                    name=name,
                    gender=picture.gender,
                    age=-1.0 if picture.age is None else picture.age,
                    subject=picture.subject,
                    group=picture.race or "",
                )

    def _merged(self, path: Path, names: list[str], pictures: list[Picture]) -> list[Picture]:
        """The pictures with their labels in the CSV; remarks where it contradicts the names or lacks pictures."""
        listed, unread = read_csv(path)
        self._remarks += unread
        contradicted: dict[str, list[str]] = {"subject": [], "gender": [], "age": []}
        merged = []
        agreed = 0
        for name, named in zip(names, pictures, strict=True):
            row = listed.get(photo_of(name), Picture())
            for field, where in contradicted.items():
                ours, theirs = getattr(named, field), getattr(row, field)
                if ours is not None and theirs is not None and ours != theirs:
                    where.append(f"{file_of(name)} ({_shown(ours)} in the name, {_shown(theirs)} in the CSV)")
            agreed += named.gender is not None and named.gender == row.gender
            known = {field: value for field, value in row._asdict().items() if value is not None}
            left = tuple(problem for problem in named.problems if problem[0] not in known)
            merged.append(named._replace(**{**known, "problems": (*row.problems, *left)}))
        if is_swapped(agreed, len(contradicted["gender"])):
            pictures_of = plural(len(contradicted["gender"]), "picture")
            raise UserError(
                f"the gender in {path.name} contradicts the names of {pictures_of}, as of "
                f"{contradicted['gender'][0]}: are male and female swapped?"
            )
        for field, where in contradicted.items():
            if where:
                some = ", ".join(where[:SHOWN]) + _more(where)
                self._remarks.append(
                    f"the CSV's {field} is taken, not the name's, for {plural(len(where), 'picture')}: {some}"
                )
        absent = [name for name in names if photo_of(name) not in listed]
        if absent:
            unlisted = f"{plural(len(absent), 'picture')} not in {path.name}"
            self._remarks.append(f"{unlisted}, labelled by name: {file_of(absent[0])} is the first")
        unused = len(listed.keys() - set(map(photo_of, names)))
        if unused:
            self._remarks.append(f"{plural(unused, 'photo')} of {path.name} not below --images")
        return merged

    def _fixed(self, path: Path, names: list[str], pictures: list[Picture]) -> list[Picture]:
        """The pictures with the corrections applied, a photo's own before its subject's; remarks how many."""
        subjects = {picture.subject for picture in pictures if picture.subject}
        fixes = read_fixes(path, {"subject": subjects, "photo": set(map(photo_of, names))})
        applied: Counter[str] = Counter()
        fixed = []
        for name, picture in zip(names, pictures, strict=True):
            of_subject = fixes.get(("subject", picture.subject or ""), {})
            changes = {**of_subject, **fixes.get(("photo", photo_of(name)), {})}
            applied.update(["picture", *changes] if changes else [])
            fixed.append(corrected(picture, changes))
        fields = ", ".join(f"{field} of {applied[field]}" for field in FIXABLE if applied[field])
        corrections = f"{plural(len(fixes), 'correction')} of {path.name}"
        self._remarks.append(f"{corrections} applied to {plural(applied['picture'], 'picture')}: {fields}")
        return fixed


def disagreements(names: Sequence[str], pictures: Sequence[Picture]) -> list[str]:
    """How many subjects have pictures that disagree, and a line for each such subject."""
    first: dict[str, Picture] = {}
    counts: dict[str, set[str]] = {}
    for picture in pictures:
        if picture.subject is None:
            continue
        met = first.setdefault(picture.subject, picture)
        for field in ("gender", "race", "dob"):
            ours, theirs = getattr(met, field), getattr(picture, field)
            if theirs is None:
                continue
            subjects = counts.setdefault(field, set())
            if ours is None:
                met = first[picture.subject] = met._replace(**{field: theirs})
            elif ours != theirs:
                subjects.add(picture.subject)
    if not counts:
        return []
    names_of = {"gender": "gender", "race": "race", "dob": "birth date"}
    lines = [
        "subjects whose pictures disagree: "
        + ", ".join(f"{len(counts[field])} in {name}" for field, name in names_of.items() if field in counts)
    ]
    torn = set().union(*counts.values())
    theirs_of: dict[str, list[tuple[str, Picture]]] = defaultdict(list)
    for name, picture in zip(names, pictures, strict=True):
        if picture.subject in torn:
            theirs_of[picture.subject].append((file_of(name), picture))
    for subject in sorted(torn):
        fields = [field for field in names_of if subject in counts.get(field, ())]
        parts = [f"{names_of[field]} {_tally(field, theirs_of[subject])}" for field in fields]
        lines.append(f"subject {subject}: {'; '.join(parts)}")
    return lines


def _tally(field: str, pictures: list[tuple[str, Picture]]) -> str:
    """F in 1 picture (x.JPG), M in 3 pictures (...): the rarest value first, as it is likely the wrong one."""
    by_value: dict[Any, list[str]] = defaultdict(list)
    for name, picture in pictures:
        if getattr(picture, field) is not None:
            by_value[getattr(picture, field)].append(name)
    return ", ".join(
        f"{_shown(value)} in {plural(len(names), 'picture')} ({', '.join(names[:SHOWN])}{_more(names)})"
        for value, names in sorted(by_value.items(), key=lambda item: len(item[1]))
    )


def _shown(value: object) -> str:
    """A value as MORPH spells it; genders are the only integers."""
    return "FM"[value] if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _more(pictures: Sequence[str]) -> str:
    return f" and {len(pictures) - SHOWN} more" if len(pictures) > SHOWN else ""
