"""The exponential moving average (EMA) of the weights, which is often more accurate than the weights themselves."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn


def decay_at(decay: float, updates: int) -> float:
    """The decay of the update after `updates` others: (1 + n) / (10 + n) until that reaches `decay`.

    As TensorFlow's ExponentialMovingAverage does, so that the random weights of the start are soon forgotten.
    """
    return min(decay, (1 + updates) / (10 + updates))


class EMA(nn.Module):
    """The EMA of a model's weights and running statistics; `module` is the EMA model.

    Made of the bare model (not the DDP or compiled one), whose tensors it follows; call `update` after each optimizer
    step. The first call copies them. All state is in `state_dict`.

    The running statistics of batch normalisation are averaged too, because they belong to the weights that produced
    them; counters are copied. EMA weights are equal on all ranks without communication. Running statistics are each
    rank's own; evaluation and checkpoints use rank 0's.

    torch's AveragedModel does the same, with some operations for each counter: a third of all that a step of a deep
    network starts on a GPU.
    """

    n_averaged: torch.Tensor
    """Updates so far, int64, on the CPU."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self.register_buffer("n_averaged", torch.tensor(0))
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the model's present weights, in two operations on a GPU."""
        updates = int(self.n_averaged)
        weight = 1 - decay_at(self.decay, updates) if updates else 1.0
        if self._averaged:
            ours, theirs = map(list, zip(*self._averaged, strict=True))
            torch._foreach_lerp_(ours, theirs, weight)
        if self._copied:
            ours, theirs = map(list, zip(*self._copied, strict=True))
            torch._foreach_copy_(ours, theirs)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in chain(module.parameters(), module.buffers())]
