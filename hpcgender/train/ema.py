"""The exponential moving average (EMA) of the weights, which is often more accurate than the weights themselves."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def decay_at(decay: float, updates: int) -> float:
    """The decay of the update after `updates` others: (1 + n) / (10 + n) until that reaches `decay`.

    As TensorFlow's ExponentialMovingAverage does, so that the random weights of the start are soon forgotten.
    """
    return min(decay, (1 + updates) / (10 + updates))


class EMA(AveragedModel):
    """The EMA of a model's weights and running statistics; `module` is the EMA model.

    Call `update_parameters(model)` with the bare model (not the DDP or compiled one) after each optimizer step. The
    first call copies the model. All state is in `state_dict`.

    The running statistics of batch normalisation are averaged too, because they belong to the weights that produced
    them; counters are copied. EMA weights are equal on all ranks without communication. Running statistics are each
    rank's own, as in DDP; evaluation and checkpoints use rank 0's.
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
        for averaged, current in zip(self.module.buffers(), model.buffers(), strict=True):
            if not averaged.is_floating_point():
                averaged.copy_(current)
