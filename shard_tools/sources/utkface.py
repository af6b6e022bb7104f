"""UTKFace: labels in file names, `[age]_[gender]_[race]_[date&time].jpg` (https://susanqq.github.io/UTKFace/)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shard_tools.sources import ImageDirectory, Record
from shard_tools.sources.values import MAX_AGE, is_age

RACES = ("White", "Black", "Asian", "Indian", "Other")
NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+")


@dataclass(kw_only=True)
class Utkface(ImageDirectory):
    """Packs images whose names follow UTKFace's convention."""

    @property
    def convention(self) -> str:
        return "UTKFace names age_gender_race_time: gender 0 male 1 female (turned to 0 female 1 male), no subjects"

    def records(self) -> Iterator[Record]:
        for row, name in enumerate(self.files()):
            match = NAME.match(name.rsplit("/", 1)[-1])
            if match and not is_age(float(match["age"])):
                yield Record(row=row, name=name, rejected=f"its age {match['age']} is not 0 to {MAX_AGE} years")
            elif match:
                yield Record(
                    row=row,
                    name=name,
                    gender=1 - int(match["gender"]),
                    age=float(match["age"]),
                    group=RACES[int(match["race"])],
                )
            else:
                yield Record(row=row, name=name, rejected="its name is not age_gender_race_time")
