"""A compact multi-branch network, such as students write for faces of 128x128 pixels.

One trunk for all tasks and one branch per task; as small as the network of Levi and Hassner (CVPRW 2015), with batch
normalisation, and with global average pooling instead of large linear layers, so that it takes images of any size. With
--branch-layers a branch has several convolutions with pooling, whose last maps are flattened.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import (
    BatchNorm2d,
    DeepHead,
    Head,
    Network,
    Outputs,
    Pixels,
    age_head,
    direction,
    gender_head,
    outputs,
    pooled,
    scaled,
)

WIDTHS = (32, 64, 128, 256)
BRANCH = 128
CELLS = 2
"""Cells along each side of the maps that are flattened: those of two --branch-layers at 128 pixels."""


def convolution(inputs: int, width: int) -> list[nn.Module]:
    """3x3 convolution without a bias, batch normalisation, ReLU."""
    return [nn.Conv2d(inputs, width, 3, padding=1, bias=False), BatchNorm2d(width), nn.ReLU(inplace=True)]


class Branch(nn.Module):
    """A task's convolution, global average pooling, dropout and head."""

    def __init__(self, head: Head | DeepHead, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = nn.Sequential(*convolution(scaled(WIDTHS[-1], config.width), scaled(BRANCH, config.width)))
        self.dropout = nn.Dropout(config.dropout)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.convolution(x))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """The head's outputs from the convolution's feature maps."""
        return self.head(self.dropout(features.mean((2, 3))))  # type: ignore[no-any-return]

    def direction(self) -> torch.Tensor | None:
        """The weights of the means of these maps in the log-odds; None if those are not linear in them."""
        return direction(self.head)


class PooledBranch(Branch):
    """A task's convolutions with 2x2 pooling after each, the last maps flattened, dropout and head."""

    def __init__(self, head: Head | DeepHead, config: ModelConfig) -> None:
        super().__init__(head, config)
        widths = (scaled(WIDTHS[-1], config.width), *config.branch_layers)
        layers = [
            layer for inputs, width in pairwise(widths) for layer in (nn.MaxPool2d(2), *convolution(inputs, width))
        ]
        self.convolution = nn.Sequential(*layers[1:])  # the last pooling is `classify`'s

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        maps = F.max_pool2d(features, 2)
        return self.head(self.dropout(pooled(pooled(maps, 2, CELLS), 3, CELLS).flatten(1)))  # type: ignore[no-any-return]

    def direction(self) -> None:
        return None


class Compact(Network):
    """The trunk halves the resolution four times; images have at least 16x16 pixels."""

    HEADS = ("gender", "age")

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        inputs = 1 if config.grayscale else 3
        blocks: list[nn.Module] = []
        for width in (scaled(width, config.width) for width in WIDTHS):
            blocks.append(nn.Sequential(*convolution(inputs, width), nn.MaxPool2d(2)))
            inputs = width
        self.features = nn.Sequential(Pixels(config.grayscale), *blocks)
        branch, width = Branch, scaled(BRANCH, config.width)
        if config.branch_layers:
            branch, width = PooledBranch, config.branch_layers[-1] * CELLS**2
        gender, age = gender_head(config, classes, width), age_head(config, width)
        self.gender = None if gender is None else branch(gender, config)
        self.age = None if age is None else branch(age, config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def classify(self, features: torch.Tensor) -> Outputs:
        return outputs(
            None if self.gender is None else self.gender(features), None if self.age is None else self.age(features)
        )

    def outputs_and_gender_features(self, x: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
        assert self.gender is not None, "the network has no gender head"
        trunk = self.features(x)
        features, gradients = self.detached(self.gender.convolution(trunk))
        with gradients:
            gender = self.gender.classify(features)
        return outputs(gender, None if self.age is None else self.age(trunk)), features

    def gender_direction(self) -> torch.Tensor | None:
        return None if self.gender is None else self.gender.direction()

    def stages(self) -> list[list[nn.Module]]:
        return [[block] for block in self.features if not isinstance(block, Pixels)]  # type: ignore[attr-defined]
