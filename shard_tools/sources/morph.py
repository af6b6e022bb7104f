"""MORPH: labels in file names, `065649_01M46.JPG` = subject, picture number, M or F, age."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shard_tools.sources import ImageDirectory, Record

NAME = re.compile(r"(?P<subject>\d+)_(?P<picture>\d+)(?P<gender>[MF])(?P<age>\d{2,3})\.", re.IGNORECASE)


@dataclass(kw_only=True)
class Morph(ImageDirectory):
    """Packs images whose names follow MORPH's convention; all pictures of a subject go to one split."""

    @property
    def convention(self) -> str:
        return "MORPH names subject_picture{M|F}age: F is 0 female, M is 1 male"

    def records(self) -> Iterator[Record]:
        for row, name in enumerate(self.files()):
            match = NAME.match(name.rsplit("/", 1)[-1])
            if match:
                yield Record(
                    row=row,
                    name=name,
                    gender=int(match["gender"].upper() == "M"),
                    age=float(match["age"]),
                    subject=match["subject"],
                )
            else:
                yield Record(row=row, name=name, rejected="its name is not subject_picture{M|F}age")
