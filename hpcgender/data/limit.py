"""What is trained on of each data set's training split: all of it, or with --limit a sample of whole subjects.

The sample is a pure function of the data sets, the limit and the seed of sampling: all runs with these have the same.
Imports no numpy unless there is a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from hpcgender.data.order import Samples

SPLIT = "train"


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What is trained on of one data set."""

    images: int
    counts: dict[str, int]
    """Images of each class."""
    chosen: Samples | None = None
    """Their numbers in the index, ascending; None: all."""
    subjects: int = 0
    """Different subjects among the chosen; 0 if none is known, or all images are taken."""


def parts_of(manifests: Sequence[Manifest], limit: int, seed: int) -> tuple[Part, ...]:
    """What is trained on of each data set; of all together at most `limit` images, 0: all.

    Whole subjects are drawn, in a seeded random order, as long as they fit in; an image of no known subject is one for
    itself. UserError if no subject fits in, or none of a data set.
    """
    if not limit:
        splits = [manifest.split(SPLIT) for manifest in manifests]
        return tuple(Part(images=split.samples, counts=split.counts) for split in splits)
    return _sampled(tuple((manifest.root, manifest.sha256) for manifest in manifests), limit, seed)


@cache
def _sampled(roots: tuple[tuple[Path, str], ...], limit: int, seed: int) -> tuple[Part, ...]:
    """The sample of data sets, given by their directories and the SHA-256 of their manifests: drawn once."""
    import numpy as np

    from hpcgender.data.counter_rng import permutation

    manifests = [read_manifest(root) for root, _ in roots]
    subjects, groups = [], []
    count = 0
    for manifest in manifests:
        subject = np.ascontiguousarray(manifest.index(SPLIT)["subject"])
        names, group = np.unique(subject, return_inverse=True)
        alone = np.flatnonzero(subject == b"")
        group[alone] = len(names) + np.arange(len(alone))
        groups.append(count + np.unique(group, return_inverse=True)[1])
        count = int(groups[-1].max(initial=count - 1)) + 1
        subjects.append(subject)
    sizes = np.bincount(np.concatenate(groups), minlength=count)
    order = permutation(seed, 0, "limit", count)
    first = int(np.searchsorted(np.cumsum(sizes[order]), limit, side="right"))
    taken = np.zeros(count, dtype=bool)
    taken[order[:first]] = True
    left = limit - int(sizes[order[:first]].sum())
    least = int(sizes.min())
    for group in order[first:]:
        if left < least:
            break
        if sizes[group] <= left:
            taken[group] = True
            left -= int(sizes[group])
    if not taken.any():
        raise UserError(f"--limit {limit}: no subject has so few images, the least is {least}")
    parts = []
    for manifest, group, subject in zip(manifests, groups, subjects, strict=True):
        chosen = np.flatnonzero(taken[group])
        if not len(chosen):
            raise UserError(
                f"--limit {limit} leaves no image of {manifest.root}: give more, leave it out, or another --limit-seed"
            )
        gender = manifest.index(SPLIT)["gender"][chosen]
        known = np.unique(subject[chosen])
        parts.append(
            Part(
                images=len(chosen),
                counts={name: int(np.count_nonzero(gender == code)) for code, name in enumerate(manifest.classes)},
                chosen=chosen,
                subjects=int(np.count_nonzero(known != b"")),
            )
        )
    return tuple(parts)
