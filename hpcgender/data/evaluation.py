"""Evaluation batches: every image once, none augmented, in blocks of neighbours."""

from __future__ import annotations

import numpy as np

from hpcgender.data.augment import Draws, centred
from hpcgender.data.config import ReadConfig
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.data.loader import Decoding, Loader
from hpcgender.data.mixture import MixedOrder
from hpcgender.data.order import Order, Samples, block_positions, check_world_size, steps_per_epoch
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest


class EvaluationLoader(Loader):
    """One split, or some `samples` of it (ascending). Each rank's part of a global batch of `batch_size` is a block.

    The last batch may be smaller, and empty on some ranks. An image that does not decode is left out.
    """

    BAD_IMAGE = "is left out"

    def __init__(
        self,
        config: ReadConfig,
        manifest: Manifest,
        split: str,
        *,
        batch_size: int,
        image_size: int,
        ranks: Ranks,
        samples: Samples | None = None,
    ) -> None:
        check_world_size(ranks.world_size, batch_size)
        if not manifest.split(split).samples:
            raise UserError(f"{split} in {manifest.root} has no images: pack the data set with some")
        block = batch_size // ranks.world_size
        super().__init__(
            config,
            [manifest],
            split,
            ranks,
            create_decoder(
                config.backend, block, image_size, ranks.device, None, decoder_threads(config.workers, ranks)
            ),
        )
        self.batch_size = batch_size
        self.front_to_back = Order(len(self.images), block, 0, 0, shuffled=False, lanes=1, drawn=samples)
        self.steps = steps_per_epoch(len(self.front_to_back), batch_size, "keep")

    def order(self, epoch: int) -> Order:
        return self.front_to_back

    def positions(self, step: int, samples: int) -> Samples:
        return block_positions(step, samples, self.batch_size, self.ranks.rank, self.ranks.world_size)

    def draws(self, samples: Samples, passes: Samples) -> Draws:
        return centred(len(samples))

    def replace(self, order: Order | MixedOrder, batch: Decoding, places: list[int]) -> None:
        batch.positions = np.delete(batch.positions, places)
        batch.samples = np.delete(batch.samples, places)
        batch.passes = np.delete(batch.passes, places)
        batch.encoded = [image for place, image in enumerate(batch.encoded) if place not in places]
