"""The plan of a pack: which images are packed, in which split, in which order, in which shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shard_tools import tar
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.catalogue import Catalogue
from shard_tools.manifest import CLASSES
from shard_tools.sources import SPLIT_NAMES, Source
from shard_tools.split import Numbers, Splits, balance, first_of_equals, keep_own_splits, linked_groups, split_groups

FEW = 0.1
"""Fraction of the larger class below which the smaller one is worth a warning."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SplitPlan:
    """One split."""

    name: str
    samples: Numbers
    """Its images by their numbers in the catalogue, in the order of the shards; shape (samples,)."""
    repeated: Flags
    """Which of them share their key with another image and get their row as well."""
    bounds: list[int]
    """Places in `samples` at which shards begin, and the number of samples."""
    bytes: int
    """Of all its tars."""
    counts: dict[str, int]
    """Samples of each class."""


@dataclass(frozen=True)
class Plan:
    """What will be packed, and remarks on it."""

    splits: list[SplitPlan]
    rejected: Numbers
    """Numbers of the images that go to quarantine."""
    contradicting: Numbers
    """Numbers of the images that have a copy of the other gender."""
    pictures: Numbers
    """Number of the first image of the same picture, for each of `contradicting`."""
    remarks: list[str]
    warnings: list[str]
    """What a person should know before training on it."""


def make_plan(source: Source, catalogue: Catalogue) -> Plan:
    """The plan, by the source's options and what is known of its images. No split is empty.

    Raises UserError where the source's own splits and the options contradict each other.
    """
    remarks: list[str] = []
    warnings: list[str] = []
    rejected = catalogue.column("rejected")
    packed = np.logical_not(rejected)
    genders = catalogue.column("gender")
    same = first_of_equals(np.where(rejected, np.uint64(0), catalogue.column("content")))
    pictures = same
    if source.near_duplicates:
        looks = np.where(rejected, np.uint64(0), catalogue.column("appearance"))
        pictures = linked_groups(same, first_of_equals(looks))
        del looks
    copies, alike = (int(np.count_nonzero(packed & (first != np.arange(len(first))))) for first in (same, pictures))
    if alike:
        remarks.append(f"copies of other images: {copies:,} byte-identical, {alike - copies:,} more by appearance")
    del same
    contradicting = _contradicting(pictures, genders, packed)
    if len(contradicting):
        dropped = source.contradictions == "drop"
        counted = plural(len(np.unique(pictures[contradicting])), "picture")
        remarks.append(
            f"{len(contradicting):,} images of {counted} are labelled female and male in different copies: "
            f"{'left out' if dropped else 'kept, --contradictions drop leaves them out'}"
        )
        packed[contradicting] = not dropped
    contradicted = pictures[contradicting]

    groups = linked_groups(pictures, first_of_equals(catalogue.column("subject")))
    del pictures
    splits = _assign_splits(source, catalogue.column("split"), groups, packed, remarks, warnings)
    del groups
    if source.balance == "equal":
        for value, label in enumerate(CLASSES):
            if not (packed & (genders == value)).any():
                raise UserError(f"no image is {label}: --balance equal would leave none at all")
        before = np.count_nonzero(packed)
        subjects = catalogue.column("subject")
        for number in range(len(SPLIT_NAMES)):
            members = np.flatnonzero(splits == number).astype(np.int32)
            packed[members] = False
            packed[members[balance(genders[members], subjects[members], source.seed)]] = True
        splits[~packed] = -1
        remarks.append(f"{plural(int(before - np.count_nonzero(packed)), 'image')} left out for as many women as men")
        del subjects
    keys = catalogue.column("key")
    firsts = first_of_equals(np.where(packed, keys, np.uint64(0)))
    del keys
    repeated = np.bincount(firsts)[firsts] > 1
    del firsts
    planned = list(_split_plans(source, catalogue, splits, genders, repeated))
    return Plan(
        splits=planned,
        rejected=np.flatnonzero(rejected).astype(np.int32),
        contradicting=contradicting,
        pictures=contradicted,
        remarks=remarks,
        warnings=[*warnings, *_class_warnings(planned)],
    )


def _assign_splits(
    source: Source, own: Splits, groups: Numbers, packed: Flags, remarks: list[str], warnings: list[str]
) -> Splits:
    """The split of each image, -1 for those that are not packed. `own` are the source's own splits, or all -1.

    What the source has no split for is taken from its train; groups stay whole. Raises UserError as Source.shares does.
    """
    splits = np.full(len(groups), -1, dtype=np.int8)
    if not packed.any():
        return splits
    groups = groups[packed]
    sizes = np.bincount(groups)
    counted = f"{plural(len(groups), 'image')} in {plural(int(np.count_nonzero(sizes)), 'group')}"
    remarks.append(f"{counted} of the same picture or subject, at most {sizes.max():,}; no group is in two splits")
    del sizes
    own = own[packed]
    counts = Counter({name: int(np.count_nonzero(own == number)) for number, name in enumerate(SPLIT_NAMES)})
    counts[""] = len(own) - counts.total()
    val, test = source.shares(counts)
    has_own = counts[""] < len(own)
    if has_own and not counts["train"]:
        found = " and ".join(f"{counts[name]} in {name}" for name in SPLIT_NAMES if counts[name])
        warnings.append(
            f"no image is in train: the source's own splits have {found}; if that is wrong, rename the directories or"
            " give the values another meaning with --splits"
        )
    if has_own:
        own, moved = keep_own_splits(groups, own)
        if moved:
            remarks.append(
                f"{plural(moved, 'image')} moved to the split of a picture that is the same or of the same subject"
            )
    drawn = np.flatnonzero(own == 0 if has_own else own < 0).astype(np.int32)
    own[drawn] = split_groups(groups[drawn], (1 - val - test, val, test), source.seed)
    for number, (name, share) in enumerate((("val", val), ("test", test)), 1):
        taken = int(np.count_nonzero(own[drawn] == number))
        if taken and has_own:
            remarks.append(f"{name}: taken from the source's own train, {share:g} of its images, as it has no {name}")
        if share and len(drawn) and not taken:
            warnings.append(
                f"no image is in {name}: of {plural(len(drawn), 'image')}, {share:g} is too little, see --{name}"
            )
    splits[packed] = own
    return splits


def _class_warnings(splits: list[SplitPlan]) -> Iterator[str]:
    """Where a class is missing, or is a small minority of all images."""
    total = {label: sum(split.counts[label] for split in splits) for label in CLASSES}
    few, many = sorted(CLASSES, key=total.__getitem__)
    if total[many] and total[few] < FEW * total[many]:
        counted = plural(sum(total.values()), "image")
        yield f"{few}: {total[few] or 'none'} of {counted} with a gender: is that all of them?"
    for split in splits:
        for label, count in split.counts.items():
            if not count and total[label] and any(split.counts.values()):
                yield f"{split.name} has no {label} images"


def _contradicting(pictures: Numbers, genders: npt.NDArray[np.int8], packed: Flags) -> Numbers:
    """Numbers of the images whose picture is labelled with both genders."""
    has = np.zeros((2, len(pictures)), dtype=bool)
    for gender in (0, 1):
        has[gender, pictures[packed & np.equal(genders, gender)]] = True
    return np.flatnonzero((has[0] & has[1])[pictures] & packed & np.greater_equal(genders, 0)).astype(np.int32)


def _split_plans(
    source: Source, catalogue: Catalogue, splits: Splits, genders: npt.NDArray[np.int8], repeated: Flags
) -> Iterator[SplitPlan]:
    blocks = tar.blocks(catalogue.column("length").astype(np.int32)) + tar.blocks(
        catalogue.column("line").astype(np.int32)
    )
    limit = (int(source.shard_mb * 1e6) - len(tar.END)) // tar.BLOCK
    for number, name in enumerate(SPLIT_NAMES):
        samples = np.flatnonzero(splits == number).astype(np.int32)
        if not len(samples):
            continue
        if source.order == "shuffled":
            np.random.default_rng([source.seed, 1, number]).shuffle(samples)
        ends = np.cumsum(blocks[samples], dtype=np.int64)
        bounds = [0]
        while bounds[-1] < len(samples):
            begin = bounds[-1]
            before = int(ends[begin - 1]) if begin else 0
            bounds.append(max(begin + 1, int(np.searchsorted(ends, before + limit, side="right"))))
        yield SplitPlan(
            name=name,
            samples=samples,
            repeated=repeated[samples],
            bounds=bounds,
            bytes=int(ends[-1]) * tar.BLOCK + (len(bounds) - 1) * len(tar.END),
            counts={label: int(np.count_nonzero(genders[samples] == value)) for value, label in enumerate(CLASSES)},
        )
