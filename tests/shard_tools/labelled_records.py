"""A small file in InsightFace's layout, and the source that reads it with a list of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shard_tools.sources import Record
from shard_tools.sources.ms1mv2 import Ms1mv2

SIZES = (3, 2, 4, 1)
"""Pictures of each identity in the small file: records 1 to 10 are images, 11 to 14 identities."""
PEOPLE = [[f"picture {n} of {person}".encode() * 9 for n in range(size)] for person, size in enumerate(SIZES)]
IMAGES = [image for person in PEOPLE for image in person]
SUBJECTS = [str(person) for person, size in enumerate(SIZES) for _ in range(size)]
BY_KEY = "".join(f"{key} {key % 2}\n" for key in range(1, 11))


def source(rec: Path, labels: str | None = BY_KEY, **options: Any) -> Ms1mv2:
    """The source for the file with these labels; 1 is male, 0 is female unless the options say otherwise."""
    if labels is not None:
        (rec.parent / "labels.txt").write_text(labels)
        options["labels"] = rec.parent / "labels.txt"
    return Ms1mv2(rec=rec, out=rec.parent / "out", **{"by": "key", "male": "1", "female": "0", **options})


def genders(records: Sequence[Record]) -> dict[int, int]:
    return {int(record.name.rsplit("/", 1)[-1]): record.gender for record in records}


MANY = [f"{key % 10 + 1} {(key + 1) % 2}\n" for key in range(300)]
