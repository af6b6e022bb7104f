"""The table of models and their cost, counted on the meta device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hpcgender.commands.models import ModelsConfig
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import on_meta
from hpcgender.models.registry import SOURCES, family, matching
from shard_tools.base.errors import UserError
from shard_tools.base.text import Table, print_tables
from shard_tools.manifest import CLASSES


@dataclass(frozen=True)
class Cost:
    """Cost of a model for one image, in float32."""

    name: str
    parameters: int
    macs: int
    """Multiply-accumulates of convolutions, linear layers and attention in a forward pass."""
    weight_bytes: int
    """Parameters and buffers; training needs as much again for gradients, and once or twice that for the optimizer."""
    activation_bytes: int
    """Kept of the forward pass for the backward pass in training; a batch of n needs n times this."""
    source: str


@dataclass(frozen=True)
class Refused:
    """A model that does not take images of the size."""

    name: str
    error: str


def list_models(config: ModelsConfig) -> None:
    """Prints the cost of every model that is asked for."""
    config.check()
    models = [ModelConfig(model=name, width=config.width) for name in matching(config.filter or "*")]
    found = [cost_or_error(model, config.image_size) for model in models]
    costs = [of_model for of_model in found if isinstance(of_model, Cost)]
    if config.json:
        print(json.dumps([asdict(of_model) for of_model in found], indent=1))
        return
    if costs:
        print_tables(table(costs, config.image_size, config.width))
    for refused in found:
        if isinstance(refused, Refused):
            print(refused.error)


def table(costs: Sequence[Cost], image_size: int, width: float = 1.0) -> Table:
    """A row per model; all have the same width."""
    wide = "" if width == 1 else f" of width {width:g}"
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
        title=f"models{wide} for {len(CLASSES)} classes; one image of {image_size}x{image_size}, float32",
        caption="Activations are kept by training for the backward pass: multiply by the images in a process's batch.",
        left=frozenset({"source"}),
        spare=("weights MB", "activations MB", "source"),
    )


def cost_or_error(config: ModelConfig, image_size: int) -> Cost | Refused:
    """The cost of a model, or why it has none at this size, as some of timm's."""
    try:
        return cost(config, image_size)
    except UserError as error:
        return Refused(config.model, str(error))


def cost(config: ModelConfig, image_size: int) -> Cost:
    """Counted on the meta device, whose tensors have no data."""
    images = 2  # batch normalisation cannot train on a single value
    network = on_meta(config, len(CLASSES), image_size)
    image = torch.empty(images, 3, image_size, image_size, device="meta")
    state = [*network.parameters(), *network.buffers()]
    weights = {value.untyped_storage()._cdata for value in state}
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
        outputs = network(image)
    assert any(output is not None for output in outputs)  # keeps the graph and its saved tensors until they are counted
    return Cost(
        name=config.model,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=counter.get_total_flops() // 2 // images,
        weight_bytes=sum(value.numel() * value.element_size() for value in state),
        activation_bytes=sum(saved.values()) // images,
        source=SOURCES[family(config.model)],
    )
