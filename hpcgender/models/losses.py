"""The losses of the tasks, over images with a known label, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import YEARS, Outputs


class Loss(NamedTuple):
    """A task's loss over a batch: two scalar float tensors, which can be summed over batches and ranks."""

    total: torch.Tensor
    """The weighted sum over the images with a known label."""
    weight: torch.Tensor
    """The sum of their weights: 1 each, or the weight of their class."""

    @property
    def mean(self) -> torch.Tensor:
        """The weighted mean; 0 for a batch without labels."""
        return self.total / torch.where(self.weight > 0, self.weight, 1)


def task_losses(outputs: Outputs, gender: torch.Tensor, age: torch.Tensor, config: ModelConfig) -> dict[str, Loss]:
    """The loss of each task of the outputs, by the task's name.

    `gender` is int64 (n,), -1 unknown; or after mixup float (n, classes), the probability of each class, whose rows sum
    to less than 1 where a label is unknown. `age` is float (n,) in years, -1 unknown. A batch without labels has loss 0
    and gradients 0, so that all ranks all-reduce the same gradients.
    """
    losses = {}
    if outputs.gender is not None:
        losses["gender"] = gender_loss(outputs.gender, gender, config)
    if outputs.age is not None:
        losses["age"] = age_loss(outputs, age, config)
    return losses


def weighted(losses: Mapping[str, Loss], config: ModelConfig) -> torch.Tensor:
    """The total loss: the sum of the tasks' mean losses times their weights."""
    return torch.stack([config.task_weights[task] * loss.mean for task, loss in losses.items()]).sum()


def gender_loss(logits: torch.Tensor, gender: torch.Tensor, config: ModelConfig) -> Loss:
    """Cross-entropy in nats, with label smoothing (Szegedy et al., arXiv 1512.00567) and class weights.

    Its mean equals torch's cross_entropy over the known labels.
    """
    classes = logits.shape[1]
    if gender.is_floating_point():
        probabilities = gender.to(logits.dtype)
    else:
        probabilities = (gender[:, None] == torch.arange(classes, device=gender.device)).to(logits.dtype)
    smoothed = probabilities
    if config.label_smoothing:
        uniform = probabilities.sum(1, keepdim=True)
        smoothed = (1 - config.label_smoothing) * probabilities + config.label_smoothing / classes * uniform
    return Loss(-(by_class(smoothed, config) * logits.log_softmax(1)).sum(), by_class(probabilities, config).sum())


def by_class(probabilities: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Probabilities (n, classes) times the classes' weights, without a synchronising copy to the GPU."""
    if not config.class_weights:
        return probabilities
    assert config.class_weights != "balanced", "to be computed from the training split: `with_class_weights`"
    return torch.stack([weight * probabilities[:, value] for value, weight in enumerate(config.class_weights)], 1)


def age_loss(outputs: Outputs, age: torch.Tensor, config: ModelConfig) -> Loss:
    """The L1, squared or smooth L1 error in years, or the cross-entropy in nats, over the known ages.

    For a distribution over the years 0 to 100 (DEX: Rothe et al., IJCV 2018) the target of an age between two years is
    on both, so that its expectation is the age; an age above 100 counts as 100.
    """
    assert outputs.age is not None
    known = age >= 0
    # The target of an unknown age is the prediction: error and gradient are 0.
    target = torch.where(known, age.to(outputs.age.dtype), outputs.age.detach())
    if config.age_loss == "l1":
        losses = F.l1_loss(outputs.age, target, reduction="none")
    elif config.age_loss == "mse":
        losses = F.mse_loss(outputs.age, target, reduction="none")
    elif config.age_loss == "smooth_l1":
        losses = F.smooth_l1_loss(outputs.age, target, reduction="none")
    else:
        assert outputs.age_logits is not None
        losses = F.cross_entropy(outputs.age_logits, year_distribution(target), reduction="none")
    return Loss((losses * known).sum(), known.sum())


def year_distribution(age: torch.Tensor) -> torch.Tensor:
    """The distribution (n, 101) over the years 0 to 100 whose expectation is `age` (n,), on the two nearest years."""
    years = torch.arange(YEARS, dtype=age.dtype, device=age.device)
    return (1 - (age.clamp(0, YEARS - 1)[:, None] - years).abs()).clamp(min=0)
