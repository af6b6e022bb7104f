"""An average of the weights over the last steps, which often tests better than the weights themselves."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def decay_at(decay: float, updates: int) -> float:
    """How much of the average stays at an update that `updates` others preceded: less in the beginning.

    (1 + n) / (10 + n) until that reaches `decay`, as TensorFlow's ExponentialMovingAverage does, so that the random
    weights of the start do not linger.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage(AveragedModel):
    """The exponential moving average of a model's weights and running statistics, in `module`.

    Call `update_parameters(model)` with the bare model (not DDP's or the compiled one) after each step of the
    optimiser. The first call copies the model. What the average will be depends on `state_dict` and the model alone.

    The running statistics of normalisation are averaged too, because they belong to the weights that produced them;
    counters are copied. Ranks hold the same averaged weights without exchanging anything. As in DDP, their running
    statistics are each rank's own, and rank 0's are the model's: evaluation and checkpoints use those.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.module.requires_grad_(False)
        self.module.eval()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        self.multi_avg_fn = get_ema_multi_avg_fn(decay_at(self.decay, int(self.n_averaged)))  # type: ignore[no-untyped-call]
        super().update_parameters(model)
        for average, current in zip(self.module.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(current)
