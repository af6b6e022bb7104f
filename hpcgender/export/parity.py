"""Whether an exported model predicts what its checkpoint does, on images of a split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.checkpoint import Trained
from hpcgender.data.config import ReadConfig
from hpcgender.data.decoders.decoder import MEAN, STD, to_pixels
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from hpcgender.inference.outputs import log_odds
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest

Results = dict[str, npt.NDArray[np.float32]]
Exported = Callable[[torch.Tensor], Results]
"""Images uint8 (n, 3, height, width) to the results by name, of which `logit` and `age` are compared, each (n,)."""
LIMITS = {"logit": 2e-3, "age": 2e-2}
"""Largest differences for the pixels that the network gets: of log-odds, relative above 1, and of years."""


def chosen_pixels(manifest: Manifest, split: str, count: int, trained: Trained) -> torch.Tensor:
    """What the network sees of images that are spread over a split: uint8 (n, 3, size, size)."""
    total = manifest.split(split).samples
    samples = np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
    loader = EvaluationLoader(
        ReadConfig(data=manifest.root, backend="torchvision", max_bad=1.0),
        manifest,
        split,
        batch_size=len(samples),
        image_size=trained.image_size,
        ranks=Ranks(0, 1, torch.device("cpu")),
        samples=samples,
    )
    with closing(loader), closing(loader.epoch(0)) as batches:
        batch = next(batches, None)
        if batch is None:
            raise UserError(f"no image of {split} in {manifest.root} decodes: give another --split")
        return to_pixels(batch.images)


def expected(trained: Trained, pixels: torch.Tensor) -> Results:
    """What the checkpoint says of them."""
    with torch.no_grad():
        outputs = trained.model((pixels.float() - MEAN) / STD)
    found = {} if outputs.gender is None else {"logit": log_odds(outputs.gender).numpy()}
    return found if outputs.age is None else {**found, "age": outputs.age.numpy()}


def differences(exported: Exported, pixels: torch.Tensor, wanted: Results) -> dict[str, float]:
    """The largest difference of each result that the exported model has; UserError if one is above its limit."""
    results = exported(pixels)
    largest = {}
    for name in wanted.keys() & results.keys():
        apart = np.abs(results[name] - wanted[name]) / (np.maximum(1, np.abs(wanted[name])) if name == "logit" else 1)
        largest[name] = float(apart.max())
        if not largest[name] <= LIMITS[name]:
            raise UserError(
                f"the exported model differs from its checkpoint by {largest[name]:.3g} in {name}, more than "
                f"{LIMITS[name]:g}: nothing was written; export in another format"
            )
    return largest
