"""Validation during training: the scores of a model over all ranks' batches of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.inference.engine import compute
from hpcgender.metrics import Scores, Tally
from hpcgender.models.config import ModelConfig
from hpcgender.models.losses import task_losses
from hpcgender.models.network import Network, Outputs
from hpcgender.precision import Precision


def validate(
    model: Network,
    parts: Sequence[Iterable[Batch]],
    ranks: Ranks,
    precision: Precision,
    config: ModelConfig,
    *,
    block: int = 0,
) -> list[Scores]:
    """The scores of a model over the batches of all loaders together, and then, if they are several, over each's.

    Every rank must call it, and all get the same scores. Smaller batches are filled up to `block` images: for another
    size, cuDNN would tune anew. The model is not compiled: its predictions are those of `evaluate`.

    Running statistics of batch normalisation differ between ranks during training: all use rank 0's, which
    checkpoints hold.
    """
    model.eval()
    if ranks.world_size > 1:
        broadcast_statistics(model)
    together = Tally(ranks.device, config.task_weights)
    each = [Tally(ranks.device, config.task_weights) for _ in parts] if len(parts) > 1 else []

    def forward(batch: Batch) -> Outputs:
        images, count = batch.images, len(batch.images)
        if count < block:
            images = torch.cat([images, images.new_zeros(block - count, *images.shape[1:])])
        with precision.autocast():
            outputs: Outputs = model(images.to(memory_format=torch.channels_last))
        return Outputs(*(None if values is None else values[:count] for values in outputs))

    for number, batches in enumerate(parts):
        for batch, outputs in compute(batches, forward, threads=0):
            losses = task_losses(outputs, batch.gender, batch.age, config)
            for tally in (together, *each[number : number + 1]):
                tally.add(losses, gender=batch.gender, logits=outputs.gender, age=batch.age, years=outputs.age)
    return [tally.scores(ranks) for tally in (together, *each)]


def broadcast_statistics(model: nn.Module) -> None:
    """Gives all ranks rank 0's running statistics, in one broadcast; counters are equal anyway. Collective."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    torch.distributed.broadcast(flat, 0)
    parts = torch.split(flat, [buffer.numel() for buffer in buffers])
    for buffer, values in zip(buffers, parts, strict=True):
        buffer.copy_(values.view_as(buffer))
