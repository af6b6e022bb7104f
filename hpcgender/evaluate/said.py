"""What a model says of every image of a split, by all ranks together."""

from __future__ import annotations

import torch

from hpcgender.data.loader import Batch
from hpcgender.data.order import Samples
from hpcgender.evaluate.inputs import Floats, Inputs, gather_in_order, of_batches
from hpcgender.evaluate.predictions import Predictions, from_index
from hpcgender.models.network import Network, Outputs
from shard_tools.base.errors import UserError


def predictions_of(inputs: Inputs, flip: bool) -> Predictions | None:
    """The predictions of the loader's split on rank 0, None on the others; with `flip` means with the mirror images.

    UserError if the model says nan or infinity, as one that diverged does.
    """

    def rows(batch: Batch) -> Floats:
        said = as_rows(inputs.trained.model, batch.images)
        if flip:
            said = (said + as_rows(inputs.trained.model, batch.images.flip(3))) / 2
        return said.cpu().numpy()

    samples: list[Samples] = []
    said: list[Floats] = []
    for batch, of_batch in of_batches(inputs, rows):
        samples.append(batch.samples)
        said.append(of_batch)
    gathered = gather_in_order(inputs, samples, said)
    if gathered is None:
        return None
    split = inputs.loader.split
    return from_index(inputs.loader.index, [shard.file for shard in split.shards], gathered)


def as_rows(model: Network, images: torch.Tensor) -> torch.Tensor:
    """What the model says of n images, float32 (n, 2): log-odds of male and age, nan for what it does not tell."""
    outputs: Outputs = model(images.to(memory_format=torch.channels_last))
    nothing = images.new_full((len(images),), torch.nan)
    gender = nothing if outputs.gender is None else outputs.gender[:, 1] - outputs.gender[:, 0]
    age = nothing if outputs.age is None else outputs.age
    for told in outputs[:2]:
        if told is not None and not told.isfinite().all():
            raise UserError("the model says nan of some images: it diverged in training, use an earlier checkpoint")
    return torch.stack([gender, age], 1).float()
