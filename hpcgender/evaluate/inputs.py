"""What evaluation and heat maps begin with: a checkpoint, a split, and the ranks that share its images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcgender.checkpoint import Trained, load_trained
from hpcgender.data.loader import Loader, evaluation_loader
from hpcgender.data.order import Samples
from hpcgender.distributed import Ranks, process_group, speak_into
from hpcgender.evaluate.config import SplitConfig
from shard_tools.commands import UserError
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
        loader = evaluation_loader(
            config,
            manifest,
            config.split,
            batch_size=config.batch_size * ranks.world_size,
            image_size=trained.image_size,
            ranks=ranks,
        )
        with closing(loader):
            yield Inputs(manifest, ranks, trained, loader)


def gather_in_order(inputs: Inputs, samples: list[Samples], results: list[Floats]) -> Floats | None:
    """All ranks' results by sample number, (samples of the split, ...), on rank 0; None on the others.

    `samples` and `results` are this rank's, a list item a batch. Every sample must be there exactly once, but for
    those that do not decode: their rows are nan, and rank 0 says how many they are.
    """
    part = (np.concatenate(samples), np.concatenate(results)) if samples else None
    parts = inputs.ranks.gather((part, inputs.loader.left_out))
    if not inputs.ranks.is_first:
        return None
    present = [part for part, _ in parts if part is not None]
    if not present:
        raise UserError(f"no image of {inputs.loader.split.name} in {inputs.manifest.root} decodes: pack it again")
    bad = sum(left_out for _, left_out in parts)
    numbers = np.concatenate([numbers for numbers, _ in present])
    count = len(inputs.loader.index)
    once = len(np.unique(numbers)) == len(numbers) == count - bad
    assert once, "an image was evaluated twice or not at all"
    values = np.full((count, *present[0][1].shape[1:]), np.nan, dtype=np.float32)
    for of_rank, result in present:
        values[of_rank] = result
    if bad:
        print(f"{bad} of {count} images do not decode and are left out: the ranks' logs name them")
    return values
