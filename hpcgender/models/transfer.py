"""Transfer learning: frozen layers, and parameter groups for the optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hpcgender.models.network import Network
from shard_tools.base.errors import UserError


def freeze(network: Network, what: Literal["none", "backbone"] | int) -> None:
    """Freezes the backbone or its first stages: their parameters get no gradients.

    Their batch normalisation uses its running statistics, in training too, and does not update them. UserError if the
    network has not so many stages.
    """
    if what == "none":
        return
    stages = network.stages()
    if what != "backbone" and what > len(stages):
        has = f"has stages 1 to {len(stages)}" if stages else "has no stages: give --freeze backbone"
        raise UserError(f"--freeze {what}: the model {has}")
    staged = {id(parameter) for stage in stages[: 0 if what == "backbone" else what] for parameter in inside(stage)}
    for name, parameter in network.named_parameters():
        if id(parameter) in staged or (what == "backbone" and not network.in_head(name)):
            parameter.requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, _NormBase):
            of_module = list(module.parameters())
            unaffected = not of_module and (what != "backbone" or network.in_head(name))
            if not unaffected and not any(parameter.requires_grad for parameter in of_module):
                network.frozen_norms.append(name)
    network.train(network.training)


def freeze_unused(network: Network, meta: Network, image_size: int) -> None:
    """Freezes what no prediction depends on, as some models of timm have: DDP would wait for its gradients.

    `meta` is the same network on the meta device.
    """
    predicted = meta(torch.empty(2, 3, image_size, image_size, device="meta"))
    torch.stack([values.sum() for values in predicted if values is not None]).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in meta.named_parameters():
        if parameter.grad is None:
            network.get_parameter(name).requires_grad_(False)


def inside(parts: Sequence[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """The parameters of parts of a network."""
    for part in parts:
        yield from part.parameters() if isinstance(part, nn.Module) else [part]


def parameter_groups(
    network: Network, lr: float, weight_decay: float, backbone_lr_factor: float = 1.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in groups for a torch optimizer, none empty.

    The learning rate is `lr` for heads and `lr * backbone_lr_factor` for the backbone, times `layer_decay` for each
    layer from a parameter's own to the last one (as in BEiT: Bao et al., arXiv 2106.08254); a schedule multiplies its
    rate by a group's "lr_factor". Biases, normalisation weights and other vectors are not decayed (arXiv 1812.01187,
    3.1). UserError if the rate is to depend on the layer, and the network has no layers.
    """
    layers = network.layers() if layer_decay != 1 else ()
    if layer_decay != 1 and not layers:
        raise UserError(f"--layer-decay {layer_decay:g}: the model has no groups of layers: leave it out")
    above = {id(parameter): len(layers) - place for place, layer in enumerate(layers) for parameter in inside(layer)}
    undecayed = network.undecayed()
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and name not in undecayed
            groups.setdefault((network.in_head(name), above.get(id(parameter), 0), decayed), []).append(parameter)
    return [
        {
            "name": f"{'heads' if head else 'backbone'}, {'decayed' if decayed else 'not decayed'}",
            "params": parameters,
            "lr": lr * factor,
            "lr_factor": factor,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (head, layer, decayed), parameters in groups.items()
        for factor in [(1.0 if head else backbone_lr_factor) * layer_decay**layer]
    ]
