"""Transfer learning: frozen layers, and parameter groups for the optimizer."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hpcgender.models.network import Network


def freeze(network: Network, what: Literal["none", "backbone"] | int) -> None:
    """Freezes the backbone or its first stages: their parameters get no gradients.

    Their batch normalisation uses its running statistics, in training too, and does not update them.
    """
    if what == "none":
        return
    staged = {id(module) for stage in network.stages()[: 0 if what == "backbone" else what] for module in stage}
    chosen: list[str] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in chosen)
        leaf = next(module.children(), None) is None
        if inside or id(module) in staged or (what == "backbone" and leaf and not network.in_head(name)):
            chosen.append(name)
            module.requires_grad_(False)
            if isinstance(module, _NormBase):
                network.frozen_norms.append(name)
    network.train(network.training)


def parameter_groups(
    network: Network, lr: float, weight_decay: float, backbone_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in groups for a torch optimizer; at most four, none empty.

    The learning rate is `lr` for heads and `lr * backbone_lr_factor` for the backbone; a schedule multiplies its rate
    by a group's "lr_factor". Biases, normalisation weights and other vectors are not decayed (arXiv 1812.01187, 3.1).
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((network.in_head(name), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "name": f"{'heads' if head else 'backbone'}, {'decayed' if decayed else 'not decayed'}",
            "params": parameters,
            "lr": lr * (1.0 if head else backbone_lr_factor),
            "lr_factor": 1.0 if head else backbone_lr_factor,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (head, decayed), parameters in groups.items()
    ]
