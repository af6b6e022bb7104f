"""What a model says of every image of a split."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.metrics import Scores, Tally
from hpcgender.models.config import ModelConfig
from hpcgender.models.losses import task_losses
from hpcgender.models.network import Network
from hpcgender.precision import Precision


@torch.inference_mode()
def measure(
    model: Network, batches: Iterable[Batch], ranks: Ranks, precision: Precision, config: ModelConfig
) -> Scores:
    """The scores of a model over a loader's batches; all ranks take part and get them.

    The ranks' running statistics drift apart in training: all measure with rank 0's, which checkpoints hold.
    """
    model.eval()
    if ranks.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    tally = Tally(ranks.device, config.task_weights)
    for batch in batches:
        with precision.autocast():
            outputs = model(batch.images.to(memory_format=torch.channels_last))
        losses = task_losses(outputs, batch.gender, batch.age, config)
        tally.add(losses, gender=batch.gender, logits=outputs.gender, age=batch.age, years=outputs.age)
    return tally.scores(ranks)
