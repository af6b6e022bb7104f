"""Training batches: shuffled, mixed, sampled by class and augmented, as a function of options, epoch and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpcgender.data.augment import Draws, draw_each
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.data.limit import SPLIT, Part, parts_of
from hpcgender.data.loader import Decoding, Loader
from hpcgender.data.mixture import MixedOrder, PassesOf, Turns
from hpcgender.data.order import Order, Samples, check_world_size, chunk_length, rank_positions, steps_per_epoch
from hpcgender.data.packs import Pack
from hpcgender.data.sampling import class_targets, draw_samples
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a data set."""

    images: int
    """All that it has."""
    targets: list[int]
    """Images of each class in a pass: an epoch, of one data set."""
    samples: int
    """Images in a pass, also those of no known class if all are taken."""
    chunk: int
    """Neighbouring images that are shuffled together."""
    chosen: Samples | None
    """The images that are trained on, ascending; None: all."""


class TrainingLoader(Loader):
    """The training split of one data set, or of a mixture. The next good image of its lane replaces one that does not
    decode."""

    BAD_IMAGE = "the next of its lane takes its place"

    def __init__(self, config: BatchConfig, packs: Sequence[Pack], ranks: Ranks) -> None:
        check_world_size(ranks.world_size, config.batch_size)
        total = sum(pack.weight for pack in packs)
        self.parts = parts_of([pack.manifest for pack in packs], config.limit, config.limit_seed)
        self.drawn = [
            drawn(config, pack, part, pack.weight / total) for pack, part in zip(packs, self.parts, strict=True)
        ]
        samples = sum(one.samples for one in self.drawn)
        self.steps = steps_per_epoch(samples, config.batch_size, config.last_batch)
        if not self.steps:
            where = " and ".join(str(pack.manifest.root) for pack in packs)
            raise UserError(
                f"{SPLIT} in {where} has {plural(samples, 'image')}, fewer than --batch-size {config.batch_size}"
            )
        self.config = config
        self.turns = Turns([pack.weight for pack in packs], config.seed) if len(packs) > 1 else None
        self.augmentation = read_augmentation(config.augment)
        part = config.batch_size // ranks.world_size
        threads = decoder_threads(config.workers, ranks)
        decoder = create_decoder(config.backend, part, config.image_size, ranks.device, self.augmentation, threads)
        super().__init__(config, [pack.manifest for pack in packs], SPLIT, ranks, decoder)

    def order(self, epoch: int) -> Order | MixedOrder:
        if not self.turns:
            return self.order_of(0, epoch)
        passes = [
            PassesOf(self.turns, number, one.samples, int(self.images.first[number]), partial(self.order_of, number))
            for number, one in enumerate(self.drawn)
        ]
        return MixedOrder(self.turns, passes, self.steps * self.config.batch_size, epoch)

    def order_of(self, number: int, one_pass: int, lane_lengths: Samples | None = None) -> Order:
        """The order of a pass of a data set."""
        config, of = self.config, self.drawn[number]
        drawn_samples = of.chosen
        if config.sampling != "none":
            gender = self.images.gender[self.images.first[number] : self.images.first[number + 1]]
            if of.chosen is not None:  # those of no known class do not come
                every, gender = gender, np.full_like(gender, -1)
                gender[of.chosen] = every[of.chosen]
            drawn_samples = draw_samples(gender, of.targets, config.seed, one_pass)
        return Order(of.images, of.chunk, config.seed, one_pass, drawn=drawn_samples, lane_lengths=lane_lengths)

    def shares(self, epoch: int = 0) -> list[int]:
        """How many images of each data set an epoch has."""
        order = self.order(epoch)
        if not self.turns or isinstance(order, Order):
            return [len(order)]
        ends = (order.begin, order.begin + len(order))
        return [self.turns.count(of, ends[1]) - self.turns.count(of, ends[0]) for of in range(len(self.drawn))]

    def positions(self, step: int, samples: int) -> Samples:
        rank, world_size = self.ranks.rank, self.ranks.world_size
        return rank_positions(step, samples, self.config.batch_size, rank, world_size, self.config.last_batch)

    def draws(self, samples: Samples, passes: Samples) -> Draws:
        return draw_each(self.augmentation, self.config.seed, passes, samples)

    def replace(self, order: Order | MixedOrder, batch: Decoding, places: list[int]) -> None:
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
                raise UserError(f"no image of the {SPLIT} split decodes: pack it again with --quality 95")
            batch.samples[place] = sample
            batch.encoded[place] = self.reader.read_image(sample)


def drawn(config: BatchConfig, pack: Pack, part: Part, share: float) -> Drawn:
    """What is drawn of a data set that has a share of all images. UserError if its classes cannot be balanced."""
    split = pack.manifest.split(SPLIT)
    targets = class_targets(list(part.counts.values()), config.sampling, config.sampling_weights)
    if not split.samples:
        raise UserError(f"{SPLIT} in {pack.manifest.root} has no images: leave it out, or pack it with some")
    sample_bytes = sum(shard.bytes for shard in split.shards) / split.samples
    chunk = chunk_length(split.samples, sample_bytes, share * config.window_mb * 1e6)
    samples = part.images if config.sampling == "none" else sum(targets)
    return Drawn(split.samples, targets, samples, chunk, part.chosen)
