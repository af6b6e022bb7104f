"""Which sample when: the order of an epoch, and a rank's part of a global batch, as pure functions.

Samples are numbered as they lie in the shards. An epoch's order is made of lanes: the split is cut into chunks of
neighbouring samples, the chunks are shuffled and dealt to the lanes in runs of equal length, each lane shuffles its
samples within blocks of one chunk's length, and the global order takes one sample of each lane in turn. Rank r of W
takes every W-th sample of it, so it reads only the lanes l with l % W == r, each from front to back; the global
batches are the same for every W that divides the number of lanes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcgender.data.draws import permutation, uniform
from shard_tools.commands import UserError

Samples = npt.NDArray[np.int64]

LANES = 960
"""Divisible by every power of two up to 64, and by 3, 5, 6, 10, 12, 20, 24, 40, 48, 80, 96, ..."""
CHUNK = 32
"""Neighbouring samples that are read together, about 200 KB of 112x112 JPEGs; fewer where a split is small."""


def check_world_size(world_size: int, batch_size: int) -> None:
    """Raises UserError unless `world_size` ranks can share the lanes and a global batch evenly."""
    if LANES % world_size:
        fits = ", ".join(str(w) for w in range(1, LANES + 1) if LANES % w == 0)
        raise UserError(f"{world_size} ranks cannot share {LANES} lanes evenly: start one of {fits} ranks")
    if batch_size % world_size:
        raise UserError(f"a global batch of {batch_size} does not divide by {world_size} ranks: change --batch-size")


def shuffled(samples: int, seed: int, epoch: int) -> Samples:
    """The order of an epoch: a permutation of range(samples), int64."""
    chunk = int(np.clip(samples // (8 * LANES), 1, CHUNK))
    chunks = permutation(seed, epoch, "chunks", -(-samples // chunk))
    walk = (chunks[:, None] * chunk + np.arange(chunk)).ravel()
    walk = walk[walk < samples]

    # The first `longer` lanes have one sample more than the others.
    short, longer = divmod(samples, LANES)
    lane = np.arange(LANES)
    start = lane * short + np.minimum(lane, longer)
    length = short + (lane < longer)
    within = np.arange(samples) - np.repeat(start, length)
    block = np.repeat(lane, length) * (short // chunk + 1) + within // chunk
    walk = walk[np.argsort(block + uniform(seed, epoch, "block", walk), kind="stable")]

    turns = walk[(start[None, :] + np.arange(short)[:, None]).ravel()]
    return np.concatenate([turns, walk[start[:longer] + short]])


def steps_per_epoch(samples: int, batch_size: int, drop_last: bool) -> int:
    """Global batches in an epoch; the last may be smaller unless it is dropped."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def rank_batch(order: Samples, step: int, batch_size: int, rank: int, world_size: int) -> Samples:
    """A rank's part of global batch `step`: every world_size-th sample; may be empty where the last batch is small."""
    return order[step * batch_size : (step + 1) * batch_size][rank::world_size]
