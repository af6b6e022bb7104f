"""The order of a mixture: several data sets in turns, as a pure function of weights, seed and position.

Positions are counted through all epochs, so nothing is dropped or padded at the end of one. As in order.py, position g
is in lane g % LANES and is its turn g // LANES. Whose turn it is follows from a pattern of as many slots as the sum of
the weights: first those of the first data set, as many as its weight, then those of the second. Each lane goes through
the pattern slot by slot, from one of its own on. Those are spread evenly over the pattern, so that each turn of
neighbouring lanes has the data sets in proportion to their weights.

Each data set comes pass by pass: all of its samples once, in an `Order` of their own, before any comes again. That
order has the same lanes: of a pass, a lane has as many samples as it has turns for the data set until the pass is over.
So a rank reads the pieces of its lanes alone, as with one data set, and batches are the same for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property

import numpy as np

from hpcgender.data.counter_rng import permutation
from hpcgender.data.order import LANES, Order, Places, Samples, next_in_lane

GROUP = 48
"""Neighbouring lanes that together have the data sets in proportion."""
PIECES = 32
"""Bits of the number of a piece within its order."""

MakeOrder = Callable[[int, Samples], Order]
"""The order of a pass, given its number and the lengths of its lanes."""


class Turns:
    """Whose turn it is at any position, and how many turns a data set had before: closed forms, without state."""

    def __init__(self, weights: Sequence[int], seed: int) -> None:
        self.weights = np.array(weights)
        self.period = int(self.weights.sum())
        self.ends = np.cumsum(self.weights)
        """Where the slots of each data set end."""
        groups = np.arange(LANES // GROUP)
        drawn = np.concatenate([permutation(seed, group, "mixture", GROUP) for group in groups.tolist()])
        between = np.repeat(groups * 618 % 1000, GROUP)  # the golden ratio: each group has other slots than the others
        self.phase = (drawn * 1000 + between) * self.period // (GROUP * 1000)
        """The slot at which each lane begins: spread evenly over each group of lanes, and there by chance, so that all
        batches have nearly the same of each data set, and no rank has more of one than another."""

    def owners(self, positions: Samples) -> Samples:
        """The data set of each position."""
        slots = (positions // LANES + self.phase[positions % LANES]) % self.period
        found: Samples = np.searchsorted(self.ends, slots, side="right")
        return found

    def in_lane(self, of: int, lane: Samples, turns: Samples) -> Samples:
        """How many of the first turns of lanes are a data set's."""
        return self._slots(of, turns + self.phase[lane]) - self._slots(of, self.phase[lane])

    def in_lanes(self, of: int, position: int) -> Samples:
        """How many turns each lane (LANES,) had for a data set before a position."""
        lanes = np.arange(LANES)
        return self.in_lane(of, lanes, (position - lanes + LANES - 1) // LANES)

    def count(self, of: int, position: int) -> int:
        """How many positions before one are a data set's."""
        return int(self.in_lanes(of, position).sum())

    def position_of(self, of: int, count: int) -> int:
        """The first position before which `count` are a data set's."""
        low, high = 0, (count // int(self.weights[of]) + LANES + 1) * self.period
        while low < high:
            middle = (low + high) // 2
            if self.count(of, middle) < count:
                low = middle + 1
            else:
                high = middle
        return low

    def _slots(self, of: int, slots: Samples) -> Samples:
        """How many of the first slots, in which the pattern comes again and again, are a data set's."""
        weight, begin = self.weights[of], self.ends[of] - self.weights[of]
        found: Samples = slots // self.period * weight + np.clip(slots % self.period - begin, 0, weight)
        return found


class PassesOf:
    """The passes of one data set of `samples` samples each; their numbers in the mixture begin at `first`."""

    def __init__(self, turns: Turns, of: int, samples: int, first: int, make: MakeOrder) -> None:
        self.turns, self.of, self.samples, self.first, self.make = turns, of, samples, first, make
        self.begin = cache(self._begin)
        self.order = cache(self._order)

    def number(self, position: int) -> int:
        """The pass at a position."""
        return self.turns.count(self.of, position) // self.samples

    def _begin(self, number: int) -> tuple[int, Samples]:
        """The position at which a pass begins, and how many turns each lane had for the data set before."""
        position = self.turns.position_of(self.of, number * self.samples)
        return position, self.turns.in_lanes(self.of, position)

    def _order(self, number: int) -> Order:
        return self.make(number, self.begin(number + 1)[1] - self.begin(number)[1])


class MixedOrder:
    """The order of an epoch of a mixture, with what `Order` has; `len` is how many positions it has."""

    lanes = LANES

    def __init__(self, turns: Turns, passes: Sequence[PassesOf], length: int, epoch: int) -> None:
        self.turns, self.passes, self.length, self.epoch = turns, passes, length, epoch
        self.begin = epoch * length

    def __len__(self) -> int:
        return self.length

    @cached_property
    def first_passes(self) -> list[int]:
        """The pass of each data set with which the epoch begins: pieces are numbered from it on."""
        return [of.number(self.begin) for of in self.passes]

    def at(self, positions: Samples) -> Places:
        """The samples at positions from 0 on."""
        found = Places(
            np.zeros(len(positions), np.int64),
            np.zeros(len(positions), np.int64),
            np.zeros(len(positions), bool),
            np.zeros(len(positions), np.int64),
        )
        if not len(positions):
            return found
        positions = self.begin + positions % self.length
        lane, turn = positions % LANES, positions // LANES
        owner = self.turns.owners(positions)
        for number, of in enumerate(self.passes):
            mine = np.flatnonzero(owner == number)
            if not len(mine):
                continue
            numbers = range(of.number(int(positions[mine].min())), of.number(int(positions[mine].max())) + 1)
            begins = [of.begin(one)[0] for one in numbers]
            which = np.searchsorted(begins, positions[mine], side="right") - 1
            for place, one in enumerate(numbers):
                here = mine[which == place]
                if not len(here):
                    continue
                order = of.order(one)
                there = self.turns.in_lane(number, lane[here], turn[here]) - of.begin(one)[1][lane[here]]
                taken = order.taken(lane[here], there, np.zeros(len(here), bool))
                found.samples[here] = of.first + taken.samples
                found.pieces[here] = (self.segment(number, one) << PIECES) + taken.pieces
                found.last[here] = taken.last
                found.passes[here] = one
        return found

    def segment(self, of: int, number: int) -> int:
        """A number of a data set's pass that no other pass of the epoch has."""
        return (number - self.first_passes[of]) * len(self.passes) + of

    def after(self, positions: Samples) -> Samples:
        """The next positions of the same lanes, and at their ends the first of the next ones."""
        return next_in_lane(positions, LANES, self.length)

    def spans(self, pieces: Samples) -> tuple[Samples, Samples]:
        """The numbers of the first and the last sample of pieces; all others of each lie between."""
        first, last = np.zeros(len(pieces), np.int64), np.zeros(len(pieces), np.int64)
        segments = pieces >> PIECES
        for segment in np.unique(segments).tolist():
            chosen = np.flatnonzero(segments == segment)
            number, of = divmod(segment, len(self.passes))
            order = self.passes[of].order(number + self.first_passes[of])
            begin, end = order.spans(pieces[chosen] & ((1 << PIECES) - 1))
            first[chosen], last[chosen] = self.passes[of].first + begin, self.passes[of].first + end
        return first, last
