"""The table of models and their cost, counted on the meta device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from hpcgender.commands.models import ModelsConfig
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.registry import MODELS, SOURCES, family
from shard_tools.base.text import Table, print_tables
from shard_tools.manifest import CLASSES


@dataclass(frozen=True)
class Cost:
    """Cost of a model for one image, in float32."""

    name: str
    parameters: int
    macs: int
    """Multiply-accumulates of convolutions and linear layers in a forward pass."""
    weight_bytes: int
    """Parameters and buffers; training needs as much again for gradients, and once or twice that for the optimizer."""
    activation_bytes: int
    """Kept of the forward pass for the backward pass in training; a batch of n needs n times this."""
    source: str


def list_models(config: ModelsConfig) -> None:
    """Prints the cost of every model."""
    config.check()
    costs = [cost(ModelConfig(model=name), config.image_size) for name in MODELS]
    if config.json:
        print(json.dumps([asdict(of_model) for of_model in costs], indent=1))
        return
    print_tables(table(costs, config.image_size))


def table(costs: Sequence[Cost], image_size: int) -> Table:
    """A row per model."""
    rows = tuple(
        (
            of_model.name,
            f"{of_model.parameters / 1e6:.2f}",
            f"{of_model.macs / 1e9:.3f}",
            f"{of_model.weight_bytes / 1e6:.1f}",
            f"{of_model.activation_bytes / 1e6:.1f}",
            of_model.source,
        )
        for of_model in costs
    )
    return Table(
        ("model", "M parameters", "G MACs", "weights MB", "activations MB", "source"),
        rows,
        title=f"models for {len(CLASSES)} classes; one image of {image_size}x{image_size}, float32",
        caption="Activations are kept by training for the backward pass: multiply by the images in a process's batch.",
        left=frozenset({"source"}),
        spare=("weights MB", "activations MB", "source"),
    )


def cost(config: ModelConfig, image_size: int) -> Cost:
    """Counted on the meta device, whose tensors have no data."""
    images = 2  # batch normalisation cannot train on a single value
    with torch.device("meta"):
        network = create(config, len(CLASSES))
        image = torch.empty(images, 3, image_size, image_size)
    macs = 0

    def count(module: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d | nn.Linear)
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    state = [*network.parameters(), *network.buffers()]
    weights = {value.untyped_storage()._cdata for value in state}
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        outputs = network(image)
    assert any(output is not None for output in outputs)  # keeps the graph and its saved tensors until they are counted
    return Cost(
        name=config.model,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs // images,
        weight_bytes=sum(value.numel() * value.element_size() for value in state),
        activation_bytes=sum(saved.values()) // images,
        source=SOURCES[family(config.model)],
    )
