"""One directory a class, as Kaggle's gender sets have it: `male/x.jpg`, `Training/female/y.jpg`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from shard_tools.base.errors import UserError
from shard_tools.base.text import plural, printable
from shard_tools.manifest import CLASSES
from shard_tools.sources import SPLIT_NAMES, ImageDirectory, Record
from shard_tools.sources.values import AROUND, GENDERS, split_of, swapped_word

_GENDER = re.compile(rf"(?:{AROUND}[ _-])?({'|'.join(GENDERS)})(?:[ _-]{AROUND})*")
_SUSPECT = re.compile(r"(?<![a-z])(train|training|test|testing|validation)(?![a-z])")
"""In the name of a directory that is not understood; shorter words are people's names, too."""
SHOWN = 8
"""Directories that an error names."""
NO_CLASS = "it is in no directory named after a class"


@lru_cache(10_000)
def _gender_of(directory: str) -> int:
    match = _GENDER.fullmatch(directory)
    return GENDERS[match[1]] if match else -1


class Directory(NamedTuple):
    """What the names in the path of a directory say of the images in it."""

    gender: int
    splits: tuple[str, ...]
    """Those that are named; of images that are packed at most one."""
    rejected: str


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
        counts = Counter(name.rpartition("/")[0] for name in names)
        directories = {path: self._understood(path) for path in counts}
        self._check_classes(directories, counts)
        self._check_splits({path: found for path, found in directories.items() if not found.rejected}, counts)
        for row, name in enumerate(names):
            found = directories[name.rpartition("/")[0]]
            yield Record(row, name, found.gender, split=next(iter(found.splits), ""), rejected=found.rejected)

    def _understood(self, path: str) -> Directory:
        """What the path of a directory says of the images in it."""
        names = path.casefold().split("/")
        genders = {self._stated_genders[name] for name in names if name in self._stated_genders}
        if not genders:
            words = [(name, _gender_of(name)) for name in names]
            # Directories of one letter may as well be parts of an alphabet, below or above others.
            genders = {g for name, g in words if g >= 0 and len(name) > 1} or {g for _, g in words if g >= 0}
        rejected = "" if genders else NO_CLASS
        if len(genders) > 1:
            rejected = "it is in directories named after both classes"
        return Directory(-1 if rejected else min(genders), tuple(self._splits_of(names)), rejected)

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
        for gender, stated in enumerate((self.female, self.male)):
            for name in stated:
                # A single letter is no word: m may begin Mann or Mujer.
                if len(name) > 1 and _gender_of(name.casefold()) == 1 - gender:
                    raise swapped_word(name, gender)
        for name, split in self.splits.items():
            if split not in SPLIT_NAMES:
                raise UserError(f"--splits turns {name!r} into {split!r}: it must be train, val or test")

    def _check_classes(self, directories: Mapping[str, Directory], counts: Mapping[str, int]) -> None:
        """Raises UserError if a stated directory is not there, or a class is not but directories of no class are."""
        names = {name for path in directories for name in path.casefold().split("/")}
        for option, stated in (("male", self.male), ("female", self.female), ("splits", self.splits)):
            for name in stated:
                if name.casefold() not in names:
                    raise UserError(f"no directory below {self.images} is called {name}, which --{option} names")
        genders = {found.gender for found in directories.values()}
        absent = [name for gender, name in enumerate(CLASSES) if gender not in genders]
        unnamed = [path for path, found in directories.items() if found.rejected == NO_CLASS]
        if absent and unnamed:
            tally = _tally((path.rpartition("/")[2], counts[path]) for path in unnamed)
            lacking = "class directories" if len(absent) == len(CLASSES) else f"directory of {absent[0]} images"
            raise UserError(
                f"no {lacking} in {self.images}, and these name no class: {tally}; "
                "rename them, or state what they mean, as in --female 0 --male 1"
            )

    def _check_splits(self, directories: Mapping[str, Directory], counts: Mapping[str, int]) -> None:
        """Raises UserError where directories name two splits, or some images are in a split and others in none."""
        remedy = "rename the directories, or state what they mean, as in --splits holdout test"
        depths: Counter[int] = Counter()
        without = [path for path, found in directories.items() if not found.splits]
        for path, found in directories.items():
            if len(found.splits) > 1:
                raise UserError(f"{printable(path)} is in directories of two splits: {remedy}")
            if found.splits:
                names = path.casefold().split("/")
                depths.update(place for place, name in enumerate(names) if self._splits_of([name]))
        if depths and without:
            depth = depths.most_common(1)[0][0]
            tally = _tally(("/".join(path.split("/")[: depth + 1]), counts[path]) for path in without)
            images = plural(sum(counts[path] for path in without), "image is", "images are")
            raise UserError(f"of {self.images}, {images} in no split, others are: {tally}; {remedy}")
        suspect = [(n, counts[path]) for path in without for n in path.split("/") if _SUSPECT.search(n.casefold())]
        if suspect:
            raise UserError(f"these directories of {self.images} may be splits: {_tally(suspect)}; {remedy}")


def _tally(directories: Iterable[tuple[str, int]]) -> str:
    """Names of directories, each with its number of images: the most frequent ones."""
    counts: Counter[str] = Counter()
    for name, count in directories:
        counts[name or "the top"] += count
    more = ", ..." if len(counts) > SHOWN else ""
    return printable(
        ", ".join(f"{name} ({plural(count, 'image')})" for name, count in counts.most_common(SHOWN)) + more
    )
