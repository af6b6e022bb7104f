"""Global batches as f(manifest, config, seed, epoch, step): the loader holds no state of the data."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.data.augment import Augmentation, Draws, centred, draw
from hpcgender.data.dali import PREFETCH, Decoder
from hpcgender.data.order import Samples, check_world_size, rank_batch, shuffled, steps_per_epoch
from hpcgender.data.shards import Encoded, ShardReader
from hpcgender.distributed import Ranks
from shard_tools.commands import UserError, one_line
from shard_tools.manifest import Manifest


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch of n images."""

    images: torch.Tensor
    """float32 (n, 3, size, size) on the device, in [-1, 1]."""
    gender: torch.Tensor
    """int64 (n,) on the device: 0 female, 1 male, -1 unknown."""
    samples: Samples
    """int64 (n,): the images' numbers in the index."""


class Loader:
    """Loads one split for one rank. `augmentation` is None for evaluation, which takes every image once, in order."""

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        *,
        batch_size: int,
        image_size: int,
        ranks: Ranks,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        check_world_size(ranks.world_size, batch_size)
        self.index = manifest.index(split)
        self.gender = torch.from_numpy(self.index["gender"].astype(np.int64))
        self.keys = self.index["key"]
        self.reader = ShardReader(self.index, manifest.shard_paths(split))
        self.batch_size = batch_size
        self.ranks = ranks
        self.augmentation = augmentation
        self.seed = seed
        self.steps = steps_per_epoch(len(self.index), batch_size, drop_last=augmentation is not None)
        if not self.steps:
            raise UserError(
                f"{split} in {manifest.root} has {len(self.index)} images, fewer than --batch-size {batch_size}"
            )
        colour = augmentation is not None and augmentation.has_colour
        self.decoder = Decoder(batch_size // ranks.world_size, image_size, ranks.device, colour, threads)
        self.waited = 0.0
        """Seconds that callers waited for pixels so far."""

    def __len__(self) -> int:
        """Global batches in an epoch."""
        return self.steps

    def order(self, epoch: int) -> Samples:
        """The order of all ranks' samples in an epoch."""
        if self.augmentation is None:
            return np.arange(len(self.index))
        return shuffled(len(self.index), self.seed, epoch)

    def draws(self, epoch: int, samples: Samples) -> Draws:
        """How the samples are varied in an epoch."""
        if self.augmentation is None:
            return centred(len(samples))
        return draw(self.augmentation, self.seed, epoch, samples)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch]:
        """The rank's batches of an epoch from `first_step` on; a batch that would be empty is left out."""
        order = self.order(epoch)

        def fetch(step: int) -> tuple[Samples, list[Encoded], Draws]:
            samples = rank_batch(order, step, self.batch_size, self.ranks.rank, self.ranks.world_size)
            return samples, self.reader.read(samples), self.draws(epoch, samples)

        for samples, images in self.decoded(fetch, range(first_step, self.steps)):
            gender = self.gender[torch.from_numpy(samples)].to(self.ranks.device, non_blocking=True)
            yield Batch(images, gender, samples)

    def decoded(
        self, fetch: Callable[[int], tuple[Samples, list[Encoded], Draws]], steps: range
    ) -> Generator[tuple[Samples, torch.Tensor]]:
        """Reads in a thread and decodes in DALI's, both ahead of the caller."""
        with ThreadPoolExecutor(1, thread_name_prefix="read") as reading:
            ahead = iter(steps)
            read: deque[Future[tuple[Samples, list[Encoded], Draws]]] = deque(
                reading.submit(fetch, step) for step in islice(ahead, 2 * PREFETCH)
            )
            decoding: deque[Samples] = deque()
            try:
                while read or decoding:
                    begin = time.perf_counter()
                    while read and len(decoding) < PREFETCH:
                        samples, encoded, draws = read.popleft().result()
                        if (step := next(ahead, None)) is not None:
                            read.append(reading.submit(fetch, step))
                        if len(samples):
                            self.decoder.submit(encoded, draws)
                            decoding.append(samples)
                    if decoding:
                        samples = decoding.popleft()
                        images = self.result(samples)
                        self.waited += time.perf_counter() - begin
                        yield samples, images
            except GeneratorExit:  # the caller stopped early: empty DALI's queue for the next epoch
                for samples in decoding:
                    self.result(samples)
                raise
            finally:
                for future in read:
                    future.cancel()

    def result(self, samples: Samples) -> torch.Tensor:
        try:
            return self.decoder.result()
        except RuntimeError as error:
            keys: npt.NDArray[np.bytes_] = self.keys[samples]
            raise UserError(
                f"an image does not decode, one of {b' '.join(keys).decode()}: pack the data set again; DALI says: "
                f"{one_line(error)}"
            ) from None

    def close(self) -> None:
        """Closes the shards."""
        self.reader.close()
