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
        known = np.flatnonzero(key != np.zeros(1, key.dtype))
        values, codes = np.unique(key[known], return_inverse=True)
        if len(values) < len(known):
            links.append((known, codes, len(values)))
    changed = True
    while changed:
        changed = False
        for known, codes, count in links:
            lowest = np.full(count, len(groups), dtype=np.int64)
            np.minimum.at(lowest, codes, groups[known])
            if not np.array_equal(lowest[codes], groups[known]):
                groups[known] = lowest[codes]
                changed = True
    return groups


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
