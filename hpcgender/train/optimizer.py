"""The optimizers SGD, Adam and AdamW, over parameter groups with learning rates of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hpcgender.commands.train import TrainConfig
from shard_tools.base.errors import UserError


def create_optimizer(config: TrainConfig, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer that `config` names, with fused kernels.

    `groups` are those of `hpcgender.models.transfer.parameter_groups`: dictionaries with `params`, `weight_decay` and
    `lr_factor`. Raises UserError if there is no group because every parameter is frozen.
    """
    if not groups:
        raise UserError(f"--freeze {config.freeze} leaves nothing to train: freeze less")
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=nesterov, fused=True)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.peak_lr, betas=(config.momentum, config.beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets each group's learning rate to `lr` times its `lr_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
