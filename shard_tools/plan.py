"""Decides what goes where: which images are packed, in which split, in which order, in which shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shard_tools import tar
from shard_tools.catalogue import Catalogue
from shard_tools.look import SPLITS
from shard_tools.manifest import CLASSES
from shard_tools.sources import Source
from shard_tools.split import Ints, balance, keep_own_splits, linked_groups, split_groups

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SplitPlan:
    """One split."""

    name: str
    samples: Ints
    """Its images by their numbers in the catalogue, in the order of the shards; int64 of shape (samples,)."""
    repeated: Flags
    """Which of them share their key with another image and get their row as well."""
    bounds: Ints
    """Places in `samples` at which shards begin, and the number of samples; int64 of shape (shards + 1,)."""
    bytes: int
    """Of all its tars."""
    counts: dict[str, int]
    """Samples of each class."""


@dataclass(frozen=True)
class Plan:
    """What will be packed, and what was noticed while deciding it."""

    splits: list[SplitPlan]
    rejected: Ints
    """Numbers of the images that go to quarantine."""
    contradicting: Ints
    """Numbers of the images that have a copy of the other gender."""
    pictures: Ints
    """Number of the first image of the same picture, for each of `contradicting`."""
    remarks: list[str]


def make_plan(source: Source, catalogue: Catalogue) -> Plan:
    """The plan, by the source's options and what was seen of its images. No split has no samples."""
    remarks: list[str] = []
    rejected = catalogue.column("rejected")
    packed = np.logical_not(rejected)
    genders = catalogue.column("gender")
    content = np.where(rejected, np.uint64(0), catalogue.column("content"))
    same = linked_groups(content)
    copies = packed.sum() - len(np.unique(same[packed]))
    del content
    looks = np.where(rejected, np.uint64(0), catalogue.column("appearance"))
    pictures = linked_groups(same + 1, looks) if source.near_duplicates else same
    del looks
    if copies or pictures is not same:
        alike = packed.sum() - len(np.unique(pictures[packed])) - copies
        remarks.append(f"{copies} images are byte-identical copies of others, {alike} more look the same as another")
    contradicting = _contradicting(pictures, genders, packed)
    if len(contradicting):
        dropped = source.contradictions == "drop"
        remarks.append(
            f"{len(contradicting)} images of {len(np.unique(pictures[contradicting]))} pictures are labelled female"
            f" and male in different copies: {'left out' if dropped else 'kept, --contradictions drop leaves them out'}"
        )
        packed[contradicting] = not dropped

    subjects = catalogue.column("subject")
    groups = linked_groups(pictures + 1, subjects)
    members = np.flatnonzero(packed)
    splits = np.full(catalogue.size, -1, dtype=np.int64)
    own = catalogue.column("split")
    if (own[members] >= 0).any():
        splits[members], moved = keep_own_splits(groups[members], np.maximum(own[members], 0).astype(np.int64))
        if moved:
            remarks.append(f"{moved} images moved to the split of a picture that is the same or of the same subject")
    elif len(members):
        shares = (1 - source.val - source.test, source.val, source.test)
        splits[members] = split_groups(groups[members], shares, source.seed)
    if len(members):
        _, sizes = np.unique(groups[members], return_counts=True)
        remarks.append(
            f"{len(members)} images in {len(sizes)} groups of the same picture or subject, at most {sizes.max()};"
            " no group is in two splits"
        )
    if source.balance == "equal":
        kept = np.concatenate([_balanced(splits == n, genders, subjects, source.seed) for n in range(len(SPLITS))])
        remarks.append(f"{len(members) - len(kept)} images left out for as many women as men")
        splits[np.setdiff1d(members, kept)] = -1
    del groups, subjects, packed, members, own
    image, label = (tar.blocks(catalogue.column(name).astype(np.int64)) for name in ("length", "line"))
    size = tar.BLOCK * (image + label)
    repeated = _repeated(catalogue.column("key"), splits >= 0)
    return Plan(
        splits=list(_split_plans(source, splits, genders, size, repeated)),
        rejected=np.flatnonzero(rejected),
        contradicting=contradicting,
        pictures=pictures[contradicting],
        remarks=remarks,
    )


def _contradicting(pictures: Ints, genders: npt.NDArray[np.int8], packed: Flags) -> Ints:
    """Numbers of the images whose picture is labelled with both genders."""
    has = np.zeros((2, len(pictures)), dtype=bool)
    for gender in (0, 1):
        has[gender, pictures[packed & np.equal(genders, gender)]] = True
    return np.flatnonzero((has[0] & has[1])[pictures] & packed & np.greater_equal(genders, 0))


def _balanced(split: Flags, genders: npt.NDArray[np.int8], subjects: npt.NDArray[np.uint64], seed: int) -> Ints:
    """The numbers of the images of a split that are left when it has as many women as men."""
    members = np.flatnonzero(split)
    return members[balance(genders[members], subjects[members], seed)]


def _repeated(keys: npt.NDArray[np.uint64], packed: Flags) -> Flags:
    """Which images have the key of another one."""
    repeated = np.zeros(len(keys), dtype=bool)
    members = np.flatnonzero(packed)
    _, place, counts = np.unique(keys[members], return_inverse=True, return_counts=True)
    repeated[members] = counts[place] > 1
    return repeated


def _split_plans(
    source: Source, splits: Ints, genders: npt.NDArray[np.int8], size: Ints, repeated: Flags
) -> Iterator[SplitPlan]:
    limit = int(source.shard_mb * 1e6) - len(tar.END)
    for number, name in enumerate(SPLITS):
        samples = np.flatnonzero(splits == number)
        if not len(samples):
            continue
        if source.order == "shuffled":
            samples = np.random.default_rng([source.seed, 1, number]).permutation(samples)
        ends = np.cumsum(size[samples])
        bounds = [0]
        while bounds[-1] < len(samples):
            begin = bounds[-1]
            before = int(ends[begin - 1]) if begin else 0
            bounds.append(max(begin + 1, int(np.searchsorted(ends, before + limit, side="right"))))
        yield SplitPlan(
            name=name,
            samples=samples,
            repeated=repeated[samples],
            bounds=np.array(bounds, dtype=np.int64),
            bytes=int(ends[-1]) + (len(bounds) - 1) * len(tar.END),
            counts={label: int(np.count_nonzero(genders[samples] == value)) for value, label in enumerate(CLASSES)},
        )
