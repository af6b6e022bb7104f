"""One directory a class, as Kaggle's gender sets have it: `male/x.jpg`, `Training/female/y.jpg`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from shard_tools.base.errors import UserError
from shard_tools.base.text import printable
from shard_tools.manifest import CLASSES
from shard_tools.sources import SPLIT_NAMES, ImageDirectory, Record

GENDERS = {
    "female": 0, "females": 0, "woman": 0, "women": 0, "f": 0,
    "male": 1, "males": 1, "man": 1, "men": 1, "m": 1,
}  # fmt: skip
SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_AROUND = r"(?:data|dataset|set|split|images?|imgs?|photos?|pictures?|faces?)"
_SPLIT = re.compile(rf"(?:{_AROUND}[ _-]?)?({'|'.join(SPLITS)})(?:[ _-]?{_AROUND})*(?:[ _-]?\d+)?")
_GENDER = re.compile(rf"(?:{_AROUND}[ _-])?({'|'.join(GENDERS)})(?:[ _-]{_AROUND})*")
_SUSPECT = re.compile(r"(?<![a-z])(train|training|test|testing|validation)(?![a-z])")
"""In the name of a directory that is not understood; shorter words are people's names, too."""
NO_CLASS = "it is in no directory named after a class"


@lru_cache(10_000)
def split_of(text: str) -> str:
    """train, val or test, if a directory or a value names it, as Training, test_set and val2 do; else empty."""
    match = _SPLIT.fullmatch(text.strip().casefold())
    return SPLITS[match[1]] if match else ""


@lru_cache(10_000)
def _gender_of(directory: str) -> int:
    match = _GENDER.fullmatch(directory)
    return GENDERS[match[1]] if match else -1


@dataclass(kw_only=True)
class Folders(ImageDirectory):
    """Packs images in one directory a class; directories such as train, val_set or Testing are kept as splits."""

    male: tuple[str, ...] = ()
    """Names of directories with men; words such as male, Men or male_faces need not be given."""
    female: tuple[str, ...] = ()
    """Names of directories with women; words such as female, Women or female_faces need not be given."""
    splits: dict[str, str] = field(default_factory=dict)
    """Names of directories, each followed by train, val or test; words such as Training, test_set need not be given."""

    @property
    def convention(self) -> str:
        stated = [f"{name} is {split}" for name, split in self.splits.items()]
        women, men = ("".join(f"{name}, " for name in names) for names in (self.female, self.male))
        return (
            f"directory names: {women}female, woman, women, f are 0 female; {men}male, man, men, m are 1 male"
            f"{'; ' if stated else ''}{', '.join(stated)}"
        )

    def records(self) -> Iterator[Record]:
        self._check_options()
        names = self.files()
        records = [self.record(row, name) for row, name in enumerate(names)]
        self._check_classes(records)
        self._check_splits([record for record in records if not record.rejected])
        yield from records

    def record(self, row: int, name: str) -> Record:
        """The record of one path, by the names of its directories."""
        directories = name.casefold().split("/")[:-1]
        genders = {self._stated_genders[d] for d in directories if d in self._stated_genders}
        if not genders:
            words = [(d, _gender_of(d)) for d in directories]
            # Directories of one letter may as well be parts of an alphabet, below or above others.
            genders = {g for d, g in words if g >= 0 and len(d) > 1} or {g for _, g in words if g >= 0}
        splits = self._splits_of(directories)
        rejected = (
            NO_CLASS if not genders else "it is in directories named after both classes" if len(genders) > 1 else ""
        )
        return Record(
            row=row,
            name=name,
            gender=-1 if rejected else genders.pop(),
            split=next(iter(splits), ""),
            rejected=rejected,
        )

    @cached_property
    def _stated_genders(self) -> Mapping[str, int]:
        return {name.casefold(): gender for gender, names in enumerate((self.female, self.male)) for name in names}

    @cached_property
    def _stated_splits(self) -> Mapping[str, str]:
        return {name.casefold(): split for name, split in self.splits.items()}

    def _splits_of(self, directories: Sequence[str]) -> list[str]:
        """The different splits that directories, in small letters, name; if some are stated, only these."""
        stated = [self._stated_splits[d] for d in directories if d in self._stated_splits]
        return list(dict.fromkeys(stated or filter(None, map(split_of, directories))))

    def _check_options(self) -> None:
        """Raises UserError for values that contradict each other."""
        both = set(map(str.casefold, self.male)) & set(map(str.casefold, self.female))
        if both:
            raise UserError(f"--male and --female both name {min(both)}: which is it?")
        for name, split in self.splits.items():
            if split not in SPLIT_NAMES:
                raise UserError(f"--splits turns {name!r} into {split!r}: it must be train, val or test")

    def _check_classes(self, records: Sequence[Record]) -> None:
        """Raises UserError if a stated directory is not there, or a class is not but directories of no class are."""
        directories = {d for record in records for d in record.name.casefold().split("/")[:-1]}
        for option, names in (("male", self.male), ("female", self.female), ("splits", self.splits)):
            for name in names:
                if name.casefold() not in directories:
                    raise UserError(f"no directory below {self.images} is called {name}, which --{option} names")
        counts = Counter(record.gender for record in records)
        unnamed = [record.name for record in records if record.rejected == NO_CLASS]
        absent = [name for gender, name in enumerate(CLASSES) if not counts[gender]]
        if absent and unnamed:
            found = _tally(name.rpartition("/")[0].rpartition("/")[2] or "the top" for name in unnamed)
            lacking = "class directories" if len(absent) == len(CLASSES) else f"directory of {absent[0]} images"
            raise UserError(
                f"no {lacking} in {self.images}, and these name no class: {found}; "
                "rename them, or state what they mean, as in --female 0 --male 1"
            )

    def _check_splits(self, records: Sequence[Record]) -> None:
        """Raises UserError where directories name two splits, or some images are in a split and others in none."""
        remedy = "rename the directories, or state what they mean, as in --splits holdout test"
        without = []
        depths: Counter[int] = Counter()
        for record in records:
            directories = record.name.casefold().split("/")[:-1]
            if len(self._splits_of(directories)) > 1:
                raise UserError(f"{printable(record.name)} is in directories of two splits: {remedy}")
            if record.split:
                depths.update(place for place, d in enumerate(directories) if self._splits_of([d]))
            else:
                without.append(record.name)
        if depths and without:
            depth = depths.most_common(1)[0][0]
            found = _tally("/".join(name.split("/")[:-1][: depth + 1]) or "the top" for name in without)
            raise UserError(f"of {self.images}, {len(without)} images are in no split, others are: {found}; {remedy}")
        suspect = [d for name in without for d in name.split("/")[:-1] if _SUSPECT.search(d.casefold())]
        if suspect:
            raise UserError(f"these directories of {self.images} may be splits: {_tally(suspect)}; {remedy}")


def _tally(names: Iterable[str]) -> str:
    """Names of directories, each with its number of images: the most frequent ones."""
    counts = Counter(names)
    more = ", ..." if len(counts) > 8 else ""
    return printable(", ".join(f"{name} ({count} images)" for name, count in counts.most_common(8)) + more)
