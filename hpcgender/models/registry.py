"""The names of the models. Imports no torch, so that a wrong name is reported immediately."""

from __future__ import annotations

from shard_tools.base.errors import unknown

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
