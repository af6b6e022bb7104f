"""SGD, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from hpcgender.train.config import TrainConfig

DECAY_EVERY_EPOCHS = 15
DECAY_FACTOR = 0.1


def sgd(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Nesterov SGD; biases, normalisation weights and other vectors are not decayed (arXiv 1812.01187, section 3.1)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from the start of training."""
    epoch = step / steps_per_epoch
    if epoch < config.warmup_epochs:
        return config.lr * (step + 1) / math.ceil(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "step":
        return config.lr * DECAY_FACTOR ** (int(epoch) // DECAY_EVERY_EPOCHS)
    left = (config.epochs - epoch) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.lr * (1 - math.cos(math.pi * left)) / 2
