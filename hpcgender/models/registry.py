"""The names of the models that can be trained. Imports no torch, so that a wrong name is reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shard_tools.commands import unknown

if TYPE_CHECKING:
    from hpcgender.models.config import ModelConfig
    from hpcgender.models.network import Network

DEPTHS = (18, 34, 50, 101, 152)
VGG_DEPTHS = (11, 13, 16, 19)
MODELS = (
    *(f"resnet{depth}" for depth in DEPTHS),
    *(f"se_resnet{depth}" for depth in DEPTHS),
    *(f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in VGG_DEPTHS),
    "compact",
)

SOURCES = {
    "resnet": "He et al., arXiv 1512.03385",
    "se_resnet": "Hu et al., arXiv 1709.01507",
    "vgg": "Simonyan and Zisserman, arXiv 1409.1556",
    "compact": "after Levi and Hassner, CVPRW 2015",
}
"""The paper of each family of models."""
STAGES = {"resnet": 4, "se_resnet": 4, "vgg": 5, "compact": 4}
"""Stages of each family that can be frozen."""


def check_model(name: str) -> None:
    """Raises UserError unless there is a model of that name."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)


def family(name: str) -> str:
    """resnet, se_resnet, vgg or compact."""
    return name.removesuffix("_bn").rstrip("0123456789")


def create(config: ModelConfig, classes: int) -> Network:
    """The model that `config` describes for `classes` genders, on the CPU, with fresh weights and nothing frozen.

    Raises UserError if there is none of that name.
    """
    check_model(config.model)
    if family(config.model) == "vgg":
        from hpcgender.models.vgg import VGG

        return VGG(config, classes)
    if config.model == "compact":
        from hpcgender.models.compact import Compact

        return Compact(config, classes)
    from hpcgender.models.resnet import ResNet

    return ResNet(config, classes)
