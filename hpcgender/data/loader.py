"""Global batches as f(manifest, config, seed, epoch, step): the loader holds no state of the data."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import numpy as np
import torch

from hpcgender.data.augment_params import Draws, centred, draw
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig, ReadConfig
from hpcgender.data.decoders import PREFETCH, BadImages, create_decoder
from hpcgender.data.order import (
    Order,
    Places,
    Samples,
    block_positions,
    check_world_size,
    chunk_length,
    rank_positions,
    steps_per_epoch,
)
from hpcgender.data.sampling import class_targets, draw_samples
from hpcgender.data.shards import Encoded, ShardReader, Window
from hpcgender.data.stage import staged
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest

STAGING_TIMEOUT = timedelta(hours=6)
"""How long nodes that have their shards wait for those that still copy them."""
AHEAD = 2 * PREFETCH
"""Steps whose shards are read ahead of decoding."""
BLOCK = 64
"""Steps whose samples are worked out at once: pieces are shuffled whole, so one step alone would cost more."""


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
    """A batch on its way through the decoder."""

    positions: Samples
    samples: Samples
    encoded: list[Encoded]


def training_loader(config: BatchConfig, manifest: Manifest, ranks: Ranks) -> Loader:
    """The batches of a training run, by its options."""
    return Loader(config, manifest, "train", config.batch_size, config.image_size, ranks, config)


def evaluation_loader(
    config: ReadConfig,
    manifest: Manifest,
    split: str,
    *,
    batch_size: int,
    image_size: int,
    ranks: Ranks,
    samples: Samples | None = None,
) -> Loader:
    """Every image of a split once, none of them varied, each rank's part a block of neighbours.

    The last batch may be smaller, and empty on some ranks. With `samples`, ascending, only those are loaded.
    """
    return Loader(config, manifest, split, batch_size, image_size, ranks, None, samples)


class Loader:
    """Loads one split for one rank: for training if there are options for that, else for evaluation."""

    def __init__(
        self,
        config: ReadConfig,
        manifest: Manifest,
        split: str,
        batch_size: int,
        image_size: int,
        ranks: Ranks,
        training: BatchConfig | None,
        only: Samples | None = None,
    ) -> None:
        check_world_size(ranks.world_size, batch_size)
        self.split = manifest.split(split)
        self.index = manifest.index(split)
        self.gender, self.age = self.index["gender"].copy(), self.index["age"].copy()
        self.batch_size = batch_size
        self.ranks = ranks
        self.training = training
        self.augmentation = read_augmentation(training.augment) if training else None
        self.last_batch = training.last_batch if training else "keep"
        counts = list(self.split.counts.values())
        self.sampled = training is not None and training.sampling != "none"
        self.targets = class_targets(counts, training.sampling, training.class_weights) if training else counts
        """Images of each class in an epoch."""
        self.only = only
        """The samples to load, if not all, in evaluation."""
        self.samples = sum(self.targets) if self.sampled else len(self.index if only is None else only)
        self.steps = steps_per_epoch(self.samples, batch_size, self.last_batch)
        if not self.steps:
            raise UserError(
                f"{split} in {manifest.root} has {self.samples} images, fewer than --batch-size {batch_size}"
            )
        shard_bytes = sum(shard.bytes for shard in self.split.shards)
        window_mb = training.window_mb if training else BatchConfig.window_mb
        self.chunk = chunk_length(len(self.index), shard_bytes / len(self.index), window_mb * 1e6)
        self.bad: set[int] = set()
        """Images of this rank that do not decode."""
        self.most_bad = math.ceil(config.max_bad * len(self.index) / ranks.world_size)
        self.left_out = 0
        """Times that an image did not decode so far: another took its place, or in evaluation none."""
        self.waited = 0.0
        """Seconds that callers waited for pixels so far."""
        self.decoder = create_decoder(
            config.backend,
            batch_size // ranks.world_size,
            image_size,
            ranks.device,
            self.augmentation,
            config.workers,
        )
        self.opened = ExitStack()
        paths = manifest.shard_paths(split)
        if config.stage_to:
            local = (ranks.local_rank, ranks.local_world_size)
            paths = self.opened.enter_context(staged(manifest, split, config.stage_to, *local))
            ranks.barrier(STAGING_TIMEOUT)
        remedy = "restore or pack it again"
        if paths != manifest.shard_paths(split):
            remedy = f"something clears {config.stage_to}: start again, with --resume, or without --stage-to"
        self.reader = ShardReader(self.index, paths, remedy)
        self.opened.callback(self.reader.close)

    def __len__(self) -> int:
        """Global batches in an epoch."""
        return self.steps

    def order(self, epoch: int) -> Order:
        """The order of all ranks' samples in an epoch."""
        if self.training is None:
            block = self.batch_size // self.ranks.world_size
            return Order(len(self.index), block, 0, 0, shuffled=False, lanes=1, drawn=self.only)
        seed = self.training.seed
        drawn = draw_samples(self.gender, self.targets, seed, epoch) if self.sampled else None
        return Order(len(self.index), self.chunk, seed, epoch, drawn=drawn)

    def draws(self, epoch: int, samples: Samples) -> Draws:
        """How the samples are varied in an epoch."""
        if self.training is None or self.augmentation is None:
            return centred(len(samples))
        return draw(self.augmentation, self.training.seed, epoch, samples)

    def plan(self, order: Order, first_step: int) -> Iterator[tuple[Samples, Places]]:
        """The positions and places of the rank's part of each global batch from `first_step` on."""
        for begin in range(first_step, self.steps, BLOCK):
            steps = range(begin, min(begin + BLOCK, self.steps))
            parts = [self.positions(k, len(order)) for k in steps]
            places = order.at(np.concatenate(parts))
            cuts = np.cumsum([len(part) for part in parts])
            fields = (np.split(field, cuts) for field in (places.samples, places.pieces, places.last))
            for positions, *of_step in zip(parts, *fields, strict=False):
                yield positions, Places(*of_step)

    def positions(self, step: int, samples: int) -> Samples:
        """The positions of the rank's part of a global batch."""
        where = (step, samples, self.batch_size, self.ranks.rank, self.ranks.world_size)
        return block_positions(*where) if self.training is None else rank_positions(*where, self.last_batch)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch]:
        """The rank's batches of an epoch from `first_step` on; a batch that would be empty is left out.

        Reads in threads and decodes in the decoder's, both ahead of the caller.
        """
        order = self.order(epoch)
        window = Window(self.reader, order)
        steps = self.plan(order, first_step)
        reading: deque[tuple[Samples, Places]] = deque()
        decoding: deque[Decoding] = deque()
        try:
            while True:
                begin = time.perf_counter()
                while len(decoding) < PREFETCH:
                    for positions, places in islice(steps, AHEAD - len(reading)):
                        window.read_ahead(places)
                        reading.append((positions, places))
                    if not reading:
                        break
                    positions, places = reading.popleft()
                    batch = Decoding(positions, places.samples, window.take(places))
                    if self.bad:
                        self.leave_out(order, batch)
                    if len(batch.samples):
                        self.decoder.submit(batch.encoded, self.draws(epoch, batch.samples))
                        decoding.append(batch)
                if not decoding:
                    return
                batch = decoding.popleft()
                images = self.decoded(order, batch)
                self.waited += time.perf_counter() - begin
                if len(batch.samples):
                    labels = (torch.from_numpy(of_all[batch.samples]) for of_all in (self.gender, self.age))
                    gender, age = (of_batch.to(self.ranks.device, non_blocking=True) for of_batch in labels)
                    yield Batch(images, gender.long(), age, batch.samples)
        except GeneratorExit:  # the caller stopped early: empty the decoder for the next epoch
            for batch in decoding:
                self.decoded(order, batch)
            raise
        finally:
            window.close()

    def decoded(self, order: Order, batch: Decoding) -> torch.Tensor:
        """The pixels of `batch`, which was submitted first; images that do not decode are taken out of it."""
        try:
            return self.decoder.result()
        except BadImages as error:
            self.note(batch.samples[error.positions].tolist(), error)
        self.leave_out(order, batch)
        self.decoder.resubmit(batch.encoded, self.draws(order.epoch, batch.samples))
        return self.decoded(order, batch) if len(batch.samples) else torch.empty(0)

    def note(self, bad: list[int], error: BadImages) -> None:
        """Counts images that did not decode, and says which; UserError if they are too many."""
        instead = "is left out" if self.training is None else "the next of its lane takes its place"
        for sample in sorted(set(bad) - self.bad):
            self.bad.add(sample)
            print(f"hpcgender: {self.name(sample)} does not decode ({error}) and {instead}", file=sys.stderr)
        if len(self.bad) > self.most_bad:
            raise UserError(
                f"{len(self.bad)} images of rank {self.ranks.rank} do not decode, more than --max-bad allows, the last "
                f"{self.name(bad[-1])}: pack the data set again, or raise --max-bad"
            )

    def name(self, sample: int) -> str:
        """A sample's key and shard."""
        row = self.index[sample]
        return f"{row['key'].decode()} in {self.reader.paths[row['shard']]}"

    def leave_out(self, order: Order, batch: Decoding) -> None:
        """Puts the next good image of its lane in the place of each bad one; in evaluation nothing."""
        places = np.flatnonzero(np.isin(batch.samples, list(self.bad))).tolist()
        self.left_out += len(places)
        if self.training is None:
            batch.positions = np.delete(batch.positions, places)
            batch.samples = np.delete(batch.samples, places)
            batch.encoded = [image for place, image in enumerate(batch.encoded) if place not in places]
            return
        batch.samples = batch.samples.copy()
        for place in places:
            sample = int(batch.samples[place])
            position = batch.positions[place : place + 1] % len(order)
            for _ in range(len(order)):
                if sample not in self.bad:
                    break
                position = order.after(position)
                sample = int(order.at(position).samples[0])
            else:
                raise UserError(f"no image of the {self.split.name} split decodes: pack the data set again")
            batch.samples[place] = sample
            batch.encoded[place] = self.reader.read_image(sample)

    def close(self) -> None:
        """Closes the shards."""
        self.opened.close()
