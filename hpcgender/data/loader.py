"""A split's images as batches: read ahead, decoded ahead, bad images noted. What training and evaluation share.

Which samples come when, how they are augmented and what replaces a bad image is decided in training.py and
evaluation.py. A batch depends on data set, options, epoch and step alone: a loader keeps no state between batches.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import ClassVar

import numpy as np
import torch

from hpcgender.data.augment import Draws
from hpcgender.data.config import ReadConfig
from hpcgender.data.decoders.decoder import PREFETCH, BadImages, Decoder
from hpcgender.data.mixture import MixedOrder
from hpcgender.data.order import Order, Places, Samples
from hpcgender.data.shards import Encoded, ShardReader, Window
from hpcgender.data.split_images import SplitImages
from hpcgender.data.stage import staged
from hpcgender.data.waiting import Waiting
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.manifest import Manifest

STAGING_TIMEOUT = timedelta(hours=6)
"""How long nodes that have their shards wait for those that still copy them."""
AHEAD = 2 * PREFETCH
"""Steps whose shards are read ahead of decoding."""
BLOCK = 64
"""Steps whose samples and draws are computed together: pieces are shuffled whole, and NumPy likes long arrays."""

REMEDY = (
    "pack the data set again with --quality 95, which encodes such images anew or leaves them out, or raise --max-bad"
)
"""What helps where too many images do not decode."""


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch of n images."""

    images: torch.Tensor
    """float32 (n, 3, size, size) on the device, in [-1, 1]."""
    gender: torch.Tensor
    """int64 (n,) on the device: 0 female, 1 male, -1 unknown."""
    age: torch.Tensor
    """float32 (n,) on the device: years, -1 unknown."""
    samples: Samples
    """int64 (n,): the images' numbers in the index."""


@dataclass
class Decoding:
    """A batch in the decoder's queue."""

    positions: Samples
    """int64 (n,): places in the epoch's order."""
    samples: Samples
    passes: Samples
    """int64 (n,): with which each image is augmented."""
    encoded: list[Encoded]


class Loader(ABC):
    """Loads one split, of one or several data sets, for one rank. `decoder` takes as many images as a rank's part of a
    batch has."""

    BAD_IMAGE: ClassVar[str]
    """What the log says is done about an image that does not decode."""
    steps: int
    """Global batches in an epoch."""

    def __init__(
        self, config: ReadConfig, manifests: Sequence[Manifest], split: str, ranks: Ranks, decoder: Decoder
    ) -> None:
        self.images = SplitImages(manifests, split)
        self.ranks = ranks
        self.decoder = decoder
        self.bad: set[int] = set()
        """Samples of this rank that do not decode."""
        self.most_bad = math.ceil(config.max_bad * len(self.images) / ranks.world_size)
        self.left_out = 0
        """Times that an image did not decode so far."""
        self.waiting = Waiting(ranks.device)
        self.opened = ExitStack()
        paths = self.images.paths()
        remedy = "restore or pack it again"
        if config.stage_to:
            to = (config.stage_to, ranks.local_rank, ranks.local_world_size)
            each = [self.opened.enter_context(staged(manifest, split, *to)) for manifest in manifests]
            paths = [path for of_one in each for path in of_one]
            ranks.barrier(STAGING_TIMEOUT)
            if paths != self.images.paths():
                remedy = f"something clears {config.stage_to}: start again, with --resume, or without --stage-to"
        self.reader = ShardReader(self.images.where(), paths, remedy)
        self.opened.callback(self.reader.close)

    @property
    def waited(self) -> float:
        """Seconds for which the device waited for pixels so far."""
        return self.waiting.seconds

    @abstractmethod
    def order(self, epoch: int) -> Order | MixedOrder:
        """The order of all ranks' samples in an epoch."""

    @abstractmethod
    def positions(self, step: int, samples: int) -> Samples:
        """The positions of the rank's part of a global batch, in an order of so many samples."""

    @abstractmethod
    def draws(self, samples: Samples, passes: Samples) -> Draws:
        """The augmentation of each sample in the pass with which it comes."""

    @abstractmethod
    def replace(self, order: Order | MixedOrder, batch: Decoding, places: list[int]) -> None:
        """Takes the bad images at `places` out of a batch, and puts others there if there are to be any."""

    def __len__(self) -> int:
        return self.steps

    def plan(self, order: Order | MixedOrder, first_step: int) -> Iterator[tuple[Samples, Places, Draws]]:
        """Positions, places and draws of the rank's part of each global batch from `first_step` on."""
        for begin in range(first_step, self.steps, BLOCK):
            parts = [self.positions(step, len(order)) for step in range(begin, min(begin + BLOCK, self.steps))]
            places = order.at(np.concatenate(parts))
            draws = self.draws(places.samples, places.passes)
            end = 0
            for positions in parts:
                part = slice(end, end := end + len(positions))
                yield positions, places.rows(part), draws.rows(part)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch]:
        """The rank's batches of an epoch from `first_step` on; a batch without images is left out.

        Reads in threads and decodes in the decoder's, both ahead of the caller.
        """
        order = self.order(epoch)
        window = Window(self.reader, order)
        steps = self.plan(order, first_step)
        reading: deque[tuple[Samples, Places, Draws]] = deque()
        decoding: deque[Decoding] = deque()
        try:
            while True:
                with self.waiting:
                    while len(decoding) < PREFETCH:
                        for step in islice(steps, AHEAD - len(reading)):
                            window.read_ahead(step[1])
                            reading.append(step)
                        if not reading:
                            break
                        positions, places, draws = reading.popleft()
                        batch = Decoding(positions, places.samples, places.passes, window.take(places))
                        if self.bad:
                            self.replace_bad(order, batch)
                            draws = self.draws(batch.samples, batch.passes)
                        if len(batch.samples):
                            self.decoder.submit(batch.encoded, draws)
                            decoding.append(batch)
                    if not decoding:
                        return
                    batch = decoding.popleft()
                    images = self.decoded(order, batch)
                if len(batch.samples):
                    labels = (
                        torch.from_numpy(of_all[batch.samples]) for of_all in (self.images.gender, self.images.age)
                    )
                    gender, age = (of_batch.to(self.ranks.device, non_blocking=True) for of_batch in labels)
                    yield Batch(images, gender.long(), age, batch.samples)
        except GeneratorExit:  # the caller stopped early: empty the decoder for the next epoch
            for batch in decoding:
                self.decoded(order, batch)
            raise
        finally:
            window.close()

    def decoded(self, order: Order | MixedOrder, batch: Decoding) -> torch.Tensor:
        """The pixels of `batch`, the earliest in the decoder's queue; images that do not decode are replaced in it."""
        try:
            return self.decoder.result()
        except BadImages as error:
            self.note_bad({int(batch.samples[place]): reason for place, reason in error.reasons.items()})
        self.replace_bad(order, batch)
        self.decoder.resubmit(batch.encoded, self.draws(batch.samples, batch.passes))
        return self.decoded(order, batch) if len(batch.samples) else torch.empty(0)

    def note_bad(self, reasons: dict[int, str]) -> None:
        """Remembers and prints samples that did not decode, and why; UserError if they are too many."""
        new = sorted(reasons.keys() - self.bad)
        for sample in new:
            self.bad.add(sample)
            print(
                f"hpcgender: {self.name(sample)} does not decode ({reasons[sample]}) and {self.BAD_IMAGE}",
                file=sys.stderr,
            )
        if len(self.bad) > self.most_bad:
            raise UserError(
                f"{plural(len(self.bad), 'image')} of rank {self.ranks.rank} failed to decode, more than --max-bad "
                f"allows, the last {self.name(new[-1])}: {REMEDY}"
            )

    def replace_bad(self, order: Order | MixedOrder, batch: Decoding) -> None:
        """Takes the images that are known to be bad out of a batch."""
        places = np.flatnonzero(np.isin(batch.samples, list(self.bad))).tolist()
        self.left_out += len(places)
        self.replace(order, batch, places)

    def name(self, sample: int) -> str:
        """A sample's key and shard."""
        return f"{self.images.key(sample)} in {self.reader.paths[self.images.shard(sample)]}"

    def close(self) -> None:
        """Closes the shards, and removes staged ones."""
        self.opened.close()
