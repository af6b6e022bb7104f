"""The names of the models that can be trained. Imports no torch, so that a wrong name is reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shard_tools.commands import unknown

if TYPE_CHECKING:
    from hpcgender.models.resnet import ResNet

DEPTHS = (18, 34, 50, 101, 152)
MODELS = (*(f"resnet{depth}" for depth in DEPTHS), *(f"se_resnet{depth}" for depth in DEPTHS))


def check_model(name: str) -> None:
    """Raises UserError unless there is a model of that name."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)


def create(name: str, classes: int, output_stride: int = 32) -> ResNet:
    """A model with fresh weights and `classes` outputs; UserError if there is none of that name."""
    from hpcgender.models.resnet import ResNet

    check_model(name)
    kind, _, depth = name.partition("resnet")
    return ResNet(int(depth), squeeze_excitation=kind == "se_", classes=classes, output_stride=output_stride)
