"""What evaluation and heat maps begin with: a checkpoint, a split, and the ranks that share its images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcgender.checkpoint import Trained, load_trained
from hpcgender.data.loader import Loader
from hpcgender.data.order import Samples
from hpcgender.distributed import Ranks, process_group, speak_into
from hpcgender.evaluate.config import SplitConfig
from shard_tools.manifest import Manifest, read_manifest

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """This rank's view of them."""

    manifest: Manifest
    ranks: Ranks
    trained: Trained
    loader: Loader


@contextmanager
def open_inputs(config: SplitConfig) -> Iterator[Inputs]:
    """Joins the ranks and opens what `config` names; UserError if it is not there or does not fit together."""
    config.check()
    manifest = read_manifest(config.data)
    with process_group() as ranks:
        speak_into(config.out_dir / "logs", ranks.rank)
        trained = load_trained(config.checkpoint, ranks.device, manifest.classes)
        loader = Loader(
            manifest,
            config.split,
            batch_size=config.batch_size * ranks.world_size,
            image_size=trained.image_size,
            ranks=ranks,
            threads=config.workers,
        )
        with closing(loader):
            yield Inputs(manifest, ranks, trained, loader)


def gather_in_order(ranks: Ranks, samples: list[Samples], results: list[Floats], count: int) -> Floats | None:
    """All ranks' results by sample number, (count, ...), on rank 0; None on the others.

    `samples` and `results` are this rank's, a list item a batch. Every sample must be there exactly once.
    """
    parts = ranks.gather((np.concatenate(samples), np.concatenate(results)) if samples else None)
    if not ranks.is_first:
        return None
    present = [part for part in parts if part is not None]
    numbers = np.concatenate([part[0] for part in present])
    assert np.array_equal(np.sort(numbers), np.arange(count)), "an image was evaluated twice or not at all"
    values: Floats = np.concatenate([part[1] for part in present])
    return values[np.argsort(numbers)]
