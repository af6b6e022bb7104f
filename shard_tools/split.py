"""Which images belong together, and which split each goes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def linked_groups(*keys: npt.NDArray[np.generic]) -> Ints:
    """Numbers the connected groups of samples that share the value of any key.

    Each key is an array of shape (samples,); zero or empty means unknown and links nothing. Returns int64 of shape
    (samples,): the number of the first sample of the group.
    """
    groups = np.arange(len(keys[0]), dtype=np.int64)
    links = []
    for key in keys:
        shared = _shared(key)
        if len(shared):
            values, codes = np.unique(key[shared], return_inverse=True)
            links.append((shared, codes, len(values)))
    changed = True
    while changed:
        changed = False
        for shared, codes, count in links:
            lowest = np.full(count, len(groups), dtype=np.int64)
            np.minimum.at(lowest, codes, groups[shared])
            if not np.array_equal(lowest[codes], groups[shared]):
                groups[shared] = lowest[codes]
                changed = True
    return groups


def _shared(key: npt.NDArray[np.generic]) -> Ints:
    """The samples whose value another sample has, too; most pictures have no copy, and need no more than a sort."""
    values = np.sort(key)
    several = np.unique(values[1:][values[1:] == values[:-1]])
    several = several[several != np.zeros(1, key.dtype)]
    if not len(several):
        return np.empty(0, dtype=np.int64)
    place = np.searchsorted(several, key)
    place[place == len(several)] = 0
    return np.flatnonzero(several[place] == key)


def split_groups(groups: Ints, shares: Sequence[float], seed: int) -> Ints:
    """Deals whole groups to splits so that each split gets its share of the samples, in a seeded random order.

    `shares` sums to 1. Returns the number of the split of each sample, int64 of shape (samples,).
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 0]).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    bounds = np.cumsum(shares)[:-1] * len(groups)
    split = np.empty(len(sizes), dtype=np.int64)
    split[order] = np.searchsorted(bounds, middle, side="right")
    return split[codes]


def keep_own_splits(groups: Ints, own: Ints) -> tuple[Ints, int]:
    """The source's own split of each sample, but that of a group in several splits is the first (train).

    A picture seen in training would flatter a test. Returns the splits and how many samples changed theirs.
    """
    first = np.full(len(groups), np.iinfo(np.int64).max)
    np.minimum.at(first, groups, own)
    kept = first[groups]
    return kept, int(np.count_nonzero(kept != own))


def balance(genders: npt.NDArray[np.int8], subjects: npt.NDArray[np.uint64], seed: int) -> Ints:
    """As many samples of gender 0 as of gender 1, of as many subjects as possible.

    Both arrays have shape (samples,); a subject of 0 is unknown, and a subject of its own. All samples of the smaller
    class are taken. Of the larger one every subject gives one picture in a seeded random order, then every subject that
    has another one a second, until there are enough. Returns the places of the samples taken, sorted.
    """
    classes = [np.flatnonzero(genders == gender) for gender in (0, 1)]
    enough = min(map(len, classes))
    taken = []
    for number, places in enumerate(classes):
        members = np.random.default_rng([seed, 2, number]).permutation(places)
        by_subject = np.argsort(subjects[members], kind="stable")
        ordered = subjects[members][by_subject]
        begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
        turn = np.empty(len(members), dtype=np.int64)  # how many pictures of its subject come before it
        turn[by_subject] = np.arange(len(members)) - np.repeat(begins, np.diff(np.r_[begins, len(members)]))
        turn[subjects[members] == 0] = 0
        taken.append(members[np.argsort(turn, kind="stable")[:enough]])
    return np.sort(np.concatenate(taken))
