"""Which sample when: the order of an epoch, and a rank's part of a global batch, as pure functions.

Samples are numbered as they lie in the shards. The split is cut into chunks of neighbouring samples, the chunks are
shuffled, and their long walk is cut into a fixed number of lanes of equal length: what a lane has of a chunk is a
piece. Each piece's samples are shuffled, and the global order takes one sample of every lane in turn. Rank r of W takes
every W-th sample of it, so it walks the lanes l with l % W == r alone, holds one piece of each in memory, and no other
rank reads them; the global batches are the same for every W that divides the number of lanes.

Only the pieces of an epoch are listed. The samples at any positions follow from them, so a step costs the same wherever
it is, and 100 million samples need no more than their chunks do. (mosaicml/streaming's canonical nodes and shuffle
blocks are the nearest relative.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcgender.data.counter_rng import permutation, uniform
from shard_tools.base.errors import UserError

Samples = npt.NDArray[np.int64]

LANES = 960
"""Divisible by every power of two up to 64, and by 3, 5, 6, 10, 12, 20, 24, 40, 48, 80, 96, ..."""


def check_world_size(world_size: int, batch_size: int) -> None:
    """Raises UserError unless `world_size` ranks can share the lanes and a global batch evenly."""
    if LANES % world_size:
        fits = ", ".join(str(w) for w in range(1, LANES + 1) if LANES % w == 0)
        raise UserError(f"{world_size} ranks cannot share {LANES} lanes evenly: start one of {fits} ranks")
    if batch_size % world_size:
        raise UserError(f"a global batch of {batch_size} does not divide by {world_size} ranks: change --batch-size")


def chunk_length(samples: int, sample_bytes: float, window_bytes: float) -> int:
    """Samples in a chunk: a chunk for each lane fills the window, but a lane has at least four chunks.

    It is a prime that does not divide a lane's length, so that lanes begin their chunks at different times and storage
    is read evenly: lane l begins l * length samples into the walk.
    """
    lane = samples // LANES
    most = int(min(window_bytes / LANES / max(sample_bytes, 1), lane / 4))
    for length in range(most, 1, -1):
        if lane % length and all(length % factor for factor in range(2, int(length**0.5) + 1)):
            return length
    return 1


@dataclass(frozen=True)
class Places:
    """Where samples come from, one element each: for those who read them."""

    samples: Samples
    """Numbers in the index."""
    pieces: npt.NDArray[np.int64]
    """Numbers of the pieces that they are read with; -1 for a sample that comes again to pad the last batch."""
    last: npt.NDArray[np.bool_]
    """Whether the sample is the last that is taken of its piece."""
    passes: npt.NDArray[np.int64]
    """How often all samples of its data set have come before: of one data set, the epoch."""

    def rows(self, chosen: slice) -> Places:
        """Some of them."""
        return Places(self.samples[chosen], self.pieces[chosen], self.last[chosen], self.passes[chosen])


class Order:
    """The order of one epoch. `len` is how many samples it has; it may have a sample more than once, or not at all.

    `drawn` are the samples that the epoch has, ascending, each as often as it is to come; None for range(samples).
    `lane_lengths` are those of the lanes, where they are not to be equal.
    Evaluation has `shuffled` False and one lane: the split from front to back, where each piece is a chunk.
    """

    def __init__(
        self,
        samples: int,
        chunk: int,
        seed: int,
        epoch: int,
        *,
        shuffled: bool = True,
        lanes: int = LANES,
        drawn: Samples | None = None,
        lane_lengths: Samples | None = None,
    ) -> None:
        self.seed, self.epoch, self.shuffled, self.lanes, self.drawn = seed, epoch, shuffled, lanes, drawn
        edges = np.append(np.arange(0, samples, chunk), samples)
        if drawn is not None:
            edges = np.searchsorted(drawn, edges)
        chunks = len(edges) - 1
        walk = permutation(seed, epoch, "chunks", chunks) if shuffled else np.arange(chunks)
        lengths = np.diff(edges)[walk]
        begins = np.cumsum(lengths) - lengths
        self.length = int(lengths.sum())

        if lane_lengths is None:  # the first lanes have one sample more than the others
            short, longer = divmod(self.length, lanes)
            lane_lengths = np.full(lanes, short) + (np.arange(lanes) < longer)
        assert lane_lengths.sum() == self.length
        starts = self.lane_begin = np.cumsum(lane_lengths) - lane_lengths
        """Where each lane begins in the walk."""
        # Where pieces begin in the walk, and at the end its length; which of the epoch's samples is the first of each.
        begin = np.union1d(begins[lengths > 0], starts[starts < self.length])
        chunk_of = np.searchsorted(begins, begin, side="right") - 1
        self.first = edges[walk[chunk_of]] + begin - begins[chunk_of]
        self.edges = np.append(begin, self.length)

    def __len__(self) -> int:
        return self.length

    def numbers(self, drawn: Samples) -> Samples:
        """The numbers in the index of samples that are given by their place among those that the epoch has."""
        return drawn if self.drawn is None else self.drawn[drawn].astype(np.int64)

    def at(self, positions: Samples) -> Places:
        """The samples at positions: position p is in lane p % lanes. After the last the order begins again."""
        again = positions >= self.length
        positions = positions % self.length
        return self.taken(positions % self.lanes, positions // self.lanes, again)

    def taken(self, lane: Samples, turn: Samples, again: npt.NDArray[np.bool_]) -> Places:
        """The sample number `turn` of each lane; `again` if it comes once more, to pad the last batch."""
        place = self.lane_begin[lane] + turn
        passes = np.full(len(place), self.epoch)
        pieces = np.searchsorted(self.edges, place, side="right") - 1
        within = place - self.edges[pieces]
        held, last = np.where(again, -1, pieces), ~again & (place == self.edges[pieces + 1] - 1)
        if not self.shuffled:
            return Places(self.numbers(self.first[pieces] + within), held, last, passes)

        # Shuffle each piece once, whole, however many of its samples are asked for.
        touched, which = np.unique(pieces, return_inverse=True)
        lengths = self.edges[touched + 1] - self.edges[touched]
        offsets = np.cumsum(lengths) - lengths
        number = np.repeat(np.arange(len(touched)), lengths)
        drawn = np.arange(len(number)) - np.repeat(offsets - self.first[touched], lengths)
        shuffle = np.argsort(number + uniform(self.seed, self.epoch, "piece", drawn), kind="stable")
        return Places(self.numbers(drawn[shuffle[offsets[which] + within]]), held, last, passes)

    def after(self, positions: Samples) -> Samples:
        """The next positions of the same lanes, and at their ends the first of the next ones."""
        return next_in_lane(positions, self.lanes, self.length)

    def spans(self, pieces: npt.NDArray[np.int64]) -> tuple[Samples, Samples]:
        """The numbers in the index of the first and the last sample of pieces; all others of each lie between."""
        first, length = self.first[pieces], self.edges[pieces + 1] - self.edges[pieces]
        return self.numbers(first), self.numbers(first + length - 1)


def next_in_lane(positions: Samples, lanes: int, length: int) -> Samples:
    """The next positions of the same lanes in an order of that length, and at their ends the first of the next ones."""
    ahead = positions + lanes
    return np.where(ahead < length, ahead, (positions % lanes + 1) % min(lanes, length))


def steps_per_epoch(samples: int, batch_size: int, last_batch: str) -> int:
    """Global batches in an epoch. `last_batch` is "drop", "pad", or "keep" for a smaller one, as evaluation does."""
    return samples // batch_size if last_batch == "drop" else -(-samples // batch_size)


def rank_positions(step: int, samples: int, batch_size: int, rank: int, world_size: int, last_batch: str) -> Samples:
    """The positions of a rank's part of global batch `step`: every world_size-th of it.

    Where the last batch is kept smaller it may be empty; where it is padded, it has positions past the last.
    """
    end = (step + 1) * batch_size
    return np.arange(step * batch_size + rank, end if last_batch == "pad" else min(end, samples), world_size)


def block_positions(step: int, samples: int, batch_size: int, rank: int, world_size: int) -> Samples:
    """The positions of a rank's part of global batch `step` in evaluation: neighbours, one whole block of them.

    Where parts have a fixed size, blocks are the same for any number of ranks. So an image is computed
    together with the same others, at the same places, and its prediction is the same to the last bit.
    """
    size = batch_size // world_size
    begin = step * batch_size + rank * size
    return np.arange(begin, max(begin, min(begin + size, samples)))
