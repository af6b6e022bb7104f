"""Training batches: shuffled, sampled by class and augmented, as a function of options, epoch and step."""

from __future__ import annotations

from hpcgender.data.augment import Draws, draw
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.data.loader import Decoding, Loader
from hpcgender.data.order import Order, Samples, check_world_size, chunk_length, rank_positions, steps_per_epoch
from hpcgender.data.sampling import class_targets, draw_samples
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest

SPLIT = "train"


class TrainingLoader(Loader):
    """The training split. The next good image of its lane replaces one that does not decode."""

    BAD_IMAGE = "the next of its lane takes its place"

    def __init__(self, config: BatchConfig, manifest: Manifest, ranks: Ranks) -> None:
        check_world_size(ranks.world_size, config.batch_size)
        split = manifest.split(SPLIT)
        counts = list(split.counts.values())
        self.targets = class_targets(counts, config.sampling, config.class_weights)
        """Images of each class in an epoch."""
        samples = split.samples if config.sampling == "none" else sum(self.targets)
        self.steps = steps_per_epoch(samples, config.batch_size, config.last_batch)
        if not self.steps:
            raise UserError(
                f"{SPLIT} in {manifest.root} has {samples} images, fewer than --batch-size {config.batch_size}"
            )
        self.config = config
        self.augmentation = read_augmentation(config.augment)
        part = config.batch_size // ranks.world_size
        threads = decoder_threads(config.workers, ranks)
        decoder = create_decoder(config.backend, part, config.image_size, ranks.device, self.augmentation, threads)
        super().__init__(config, manifest, SPLIT, ranks, decoder)
        sample_bytes = sum(shard.bytes for shard in split.shards) / split.samples
        self.chunk = chunk_length(split.samples, sample_bytes, config.window_mb * 1e6)

    def order(self, epoch: int) -> Order:
        seed = self.config.seed
        drawn = None if self.config.sampling == "none" else draw_samples(self.gender, self.targets, seed, epoch)
        return Order(len(self.index), self.chunk, seed, epoch, drawn=drawn)

    def positions(self, step: int, samples: int) -> Samples:
        rank, world_size = self.ranks.rank, self.ranks.world_size
        return rank_positions(step, samples, self.config.batch_size, rank, world_size, self.config.last_batch)

    def draws(self, epoch: int, samples: Samples) -> Draws:
        return draw(self.augmentation, self.config.seed, epoch, samples)

    def replace(self, order: Order, batch: Decoding, places: list[int]) -> None:
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
