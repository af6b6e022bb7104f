"""What a model says of every image of a split."""

from __future__ import annotations

import torch

from hpcgender.data.loader import Loader
from hpcgender.distributed import Ranks
from hpcgender.metrics import Scores, Tally
from hpcgender.models.resnet import ResNet
from hpcgender.precision import Precision


@torch.inference_mode()
def measure(model: ResNet, loader: Loader, ranks: Ranks, precision: Precision) -> Scores:
    """The scores of a model over the loader's split, every image once; all ranks take part and get them.

    The ranks' running statistics drift apart in training: all measure with rank 0's, which checkpoints hold.
    """
    model.eval()
    if ranks.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    tally = Tally(ranks.device)
    for batch in loader.epoch(0):
        with precision.autocast():
            logits = model(batch.images.to(memory_format=torch.channels_last))
        tally.add(logits, batch.gender)
    return tally.scores(ranks)
