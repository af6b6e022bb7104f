"""The losses of the tasks, of the images whose label is known, and the weighted sum of their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import YEARS, Outputs


class Loss(NamedTuple):
    """A task's loss over a batch: two floats of no dimensions, which add up over batches and ranks."""

    total: torch.Tensor
    """The sum over the images whose label is known, each times what it counts."""
    weight: torch.Tensor
    """The sum of what they count: 1 each, or the weight of their class."""

    @property
    def mean(self) -> torch.Tensor:
        """The mean; 0 of a batch without any label."""
        return self.total / torch.where(self.weight > 0, self.weight, 1)


def task_losses(outputs: Outputs, gender: torch.Tensor, age: torch.Tensor, config: ModelConfig) -> dict[str, Loss]:
    """The loss of each task of the outputs, by the task's name.

    `gender` is int64 (n,), -1 unknown; or after mixup float (n, classes), the part of each class, whose rows add up to
    less than 1 where a part is unknown. `age` is float (n,) in years, -1 unknown. A batch without any label has loss 0
    and gradients 0, so that all processes have the same ones to exchange.
    """
    losses = {}
    if outputs.gender is not None:
        losses["gender"] = gender_loss(outputs.gender, gender, config)
    if outputs.age is not None:
        losses["age"] = age_loss(outputs, age, config)
    return losses


def weighted(losses: Mapping[str, Loss], config: ModelConfig) -> torch.Tensor:
    """What is minimised: the sum of the tasks' mean losses times their weights."""
    return torch.stack([config.task_weights[task] * loss.mean for task, loss in losses.items()]).sum()


def gender_loss(logits: torch.Tensor, gender: torch.Tensor, config: ModelConfig) -> Loss:
    """Cross-entropy in nats, with labels smoothed (Szegedy et al., arXiv 1512.00567) and classes weighted.

    Equals torch's cross_entropy of the known labels: a weighted mean, in which the weights add up to 1.
    """
    classes = logits.shape[1]
    if gender.is_floating_point():
        parts = gender.to(logits.dtype)
    else:
        parts = (gender[:, None] == torch.arange(classes, device=gender.device)).to(logits.dtype)
    smoothed = (1 - config.label_smoothing) * parts + config.label_smoothing / classes * parts.sum(1, keepdim=True)
    return Loss(-(by_class(smoothed, config) * logits.log_softmax(1)).sum(), by_class(parts, config).sum())


def by_class(parts: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Parts of classes (n, classes) times the classes' weights, without a copy to the GPU that it would wait for."""
    if not config.loss_weights:
        return parts
    return torch.stack([weight * parts[:, value] for value, weight in enumerate(config.loss_weights)], 1)


def age_loss(outputs: Outputs, age: torch.Tensor, config: ModelConfig) -> Loss:
    """The mean over known ages of the absolute, squared or smooth difference in years, or of the cross-entropy in nats.

    For a distribution over the years 0 to 100 (DEX: Rothe et al., IJCV 2018) an age between two years is shared by
    both, so that its expectation is the age; one beyond 100 counts as 100.
    """
    assert outputs.age is not None
    known = age >= 0
    # An unknown age is taken for what was said: difference and gradient are 0.
    target = torch.where(known, age.to(outputs.age.dtype), outputs.age.detach())
    if config.age_loss == "l1":
        losses = F.l1_loss(outputs.age, target, reduction="none")
    elif config.age_loss == "mse":
        losses = F.mse_loss(outputs.age, target, reduction="none")
    elif config.age_loss == "smooth_l1":
        losses = F.smooth_l1_loss(outputs.age, target, reduction="none")
    else:
        assert outputs.age_logits is not None
        losses = F.cross_entropy(outputs.age_logits, of_years(target), reduction="none")
    return Loss((losses * known).sum(), known.sum())


def of_years(age: torch.Tensor) -> torch.Tensor:
    """The distribution (n, 101) over the years 0 to 100 whose expectation is `age` (n,), on the two years around it."""
    years = torch.arange(YEARS, dtype=age.dtype, device=age.device)
    return (1 - (age.clamp(0, YEARS - 1)[:, None] - years).abs()).clamp(min=0)
