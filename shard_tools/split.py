"""Which images belong together, and which split each goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]
Splits = npt.NDArray[np.int8]

_PARTS = 16
"""Samples are sorted in so many parts, by the last bits of their keys: a sixteenth of the memory."""


def first_of_equals(key: npt.NDArray[np.integer[Any]]) -> Numbers:
    """The first sample that has the same key, for each sample; itself where the key is 0, which means unknown.

    `key` has shape (samples,); of large sets it should be hashes, whose last bits differ.
    """
    first = np.arange(len(key), dtype=np.int32)
    parts = key.astype(np.uint8) % _PARTS
    for part in range(_PARTS):
        members = np.flatnonzero(parts == part).astype(np.int32)
        members = members[np.argsort(key[members], kind="stable")]
        values = key[members]
        begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else members
        firsts = np.repeat(members[begins], np.diff(np.r_[begins, len(members)]))
        first[members] = np.where(values == 0, members, firsts)
    return first


def linked_groups(*firsts: Numbers) -> Numbers:
    """Numbers the connected groups of samples that are equal in any way, each way as `first_of_equals` has it.

    Returns the number of the first sample of the group, shape (samples,).
    """
    groups = firsts[0]
    changed = len(firsts) > 1
    while changed:
        changed = False
        for first in firsts:
            lowest = np.full(len(groups), len(groups), dtype=np.int32)
            np.minimum.at(lowest, first, groups)
            lower = lowest[first]
            changed = changed or not np.array_equal(lower, groups)
            groups = lower
    return groups


def split_groups(groups: Numbers, shares: Sequence[float], seed: int) -> Splits:
    """Assigns whole groups to splits, in a seeded random order, so that each split gets its fraction of the samples.

    `shares` sums to 1. Returns the number of the split of each sample, shape (samples,).
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng([seed, 0]).permutation(np.flatnonzero(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    split = np.zeros(len(sizes), dtype=np.int8)
    split[order] = np.searchsorted(np.cumsum(shares)[:-1] * len(groups), middle, side="right")
    return split[groups]


def keep_own_splits(groups: Numbers, own: Splits) -> tuple[Splits, int]:
    """The source's own split of each sample, but that of a group in several splits is the first (train).

    A picture seen in training would make a test too good. Returns the splits and how many samples changed theirs.
    """
    first = np.full(int(groups.max(initial=0)) + 1, np.iinfo(np.int8).max, dtype=np.int8)
    np.minimum.at(first, groups, own)
    kept = first[groups]
    return kept, int(np.count_nonzero(kept != own))


def balance(genders: npt.NDArray[np.int8], subjects: npt.NDArray[np.uint64], seed: int) -> Numbers:
    """As many samples of gender 0 as of gender 1, of as many subjects as possible.

    Both arrays have shape (samples,); a subject of 0 is unknown, and a subject of its own. All samples of the smaller
    class are taken. Of the larger one every subject gives one picture in a seeded random order, then every subject that
    has another one a second, until there are enough. Returns the places of the samples taken, sorted.
    """
    classes = [np.flatnonzero(genders == gender).astype(np.int32) for gender in (0, 1)]
    enough = min(map(len, classes))
    taken = []
    for number, places in enumerate(classes):
        members = np.random.default_rng([seed, 2, number]).permutation(places)
        of = subjects[members]
        by_subject = np.argsort(of, kind="stable").astype(np.int32)
        of = of[by_subject]
        begins = np.flatnonzero(np.r_[True, of[1:] != of[:-1]]).astype(np.int32) if len(of) else by_subject
        turn = np.empty(len(members), dtype=np.int32)  # how many pictures of its subject come before it
        turn[by_subject] = np.arange(len(members)) - np.repeat(begins, np.diff(np.r_[begins, len(members)]))
        turn[subjects[members] == 0] = 0
        taken.append(members[np.argsort(turn, kind="stable")[:enough]])
    return np.sort(np.concatenate(taken))
