"""One directory a class, as Kaggle's gender sets have it: `male/x.jpg`, `Training/female/y.jpg`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shard_tools.base.errors import UserError
from shard_tools.sources import ImageDirectory, Record

GENDERS = {"female": 0, "woman": 0, "women": 0, "f": 0, "male": 1, "man": 1, "men": 1, "m": 1}
SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(kw_only=True)
class Folders(ImageDirectory):
    """Packs images in one directory a class; directories named train, val or test above them are kept as splits."""

    @property
    def convention(self) -> str:
        return "directory names: female, woman, women, f are 0 female; male, man, men, m are 1 male"

    def records(self) -> Iterator[Record]:
        records = [self.record(row, name) for row, name in enumerate(self.files())]
        if all(record.rejected for record in records):
            raise UserError(f"no class directories in {self.images}: expected directories such as female/ and male/")
        yield from records

    @staticmethod
    def record(row: int, name: str) -> Record:
        """The record of one path: its class and split are those of the innermost directories that name one."""
        names = [directory.lower() for directory in reversed(name.split("/")[:-1])]
        gender = next((GENDERS[name] for name in names if name in GENDERS), -1)
        split = next((SPLITS[name] for name in names if name in SPLITS), "")
        rejected = "" if gender >= 0 else "it is in no directory named after a class"
        return Record(row=row, name=name, gender=gender, split=split, rejected=rejected)
