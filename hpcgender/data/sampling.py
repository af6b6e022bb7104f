"""How often each sample comes in an epoch: once, or so that the classes are balanced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpcgender.data.config import Sampling
from hpcgender.data.counter_rng import random_bits
from hpcgender.data.order import Samples
from shard_tools.base.errors import UserError


def class_targets(counts: Sequence[int], sampling: Sampling, weights: Sequence[float] = ()) -> list[int]:
    """How many samples of each class an epoch has, given how many there are.

    With `weights`, a sample of class c is drawn weights[c] times as often as one of weight 1, and the epoch stays as
    long as it was: what torch.utils.data.WeightedRandomSampler gives on average, without its chance.
    """
    if sampling == "none":
        return list(counts)
    if 0 in counts:
        raise UserError(f"--sampling {sampling} needs images of every class: there are {list(counts)}; use none")
    if sampling != "weights":
        return [min(counts) if sampling == "undersample" else max(counts)] * len(counts)
    if len(weights) != len(counts) or min(weights) < 0 or not 0 < sum(weights) < np.inf:
        raise UserError(f"--sampling weights needs --sampling-weights with {len(counts)} numbers, not {list(weights)}")
    shares = np.cumsum(np.multiply(counts, weights))
    return [int(target) for target in np.diff(np.rint(shares / shares[-1] * sum(counts)), prepend=0)]


def draw_samples(classes: npt.NDArray[np.int8], targets: Sequence[int], seed: int, epoch: int) -> Samples:
    """The samples of an epoch, ascending, each as often as it is to come: targets[c] of class c.

    Every sample of a class comes equally often, but for a remainder that is drawn anew each epoch. Samples of unknown
    class (negative) do not come. The dtype is the smallest unsigned that holds every number.
    """
    copies = np.zeros(len(classes), dtype=np.uint32)
    for value, target in enumerate(targets):
        members = np.flatnonzero(classes == value)
        times, rest = divmod(target, len(members))
        copies[members] = times
        if rest:
            drawn = np.argpartition(random_bits(seed, epoch, "sampling", members), rest)[:rest]
            copies[members[drawn]] += 1
    return np.repeat(np.arange(len(classes), dtype=np.min_scalar_type(len(classes))), copies)
