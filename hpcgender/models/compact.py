"""A compact multi-branch network, such as students write for faces of 128x128 pixels.

One trunk for all tasks and one branch per task; as small as the network of Levi and Hassner (CVPRW 2015), with batch
normalisation, and with global average pooling instead of large linear layers, so that it takes images of any size.
"""

from __future__ import annotations

import torch
from torch import nn

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import (
    BatchNorm2d,
    Head,
    Network,
    Outputs,
    Pixels,
    age_head,
    direction,
    gender_head,
    outputs,
)

WIDTHS = (32, 64, 128, 256)
BRANCH = 128


def convolution(inputs: int, width: int) -> list[nn.Module]:
    """3x3 convolution without a bias, batch normalisation, ReLU."""
    return [nn.Conv2d(inputs, width, 3, padding=1, bias=False), BatchNorm2d(width), nn.ReLU(inplace=True)]


class Branch(nn.Module):
    """A task's convolution, global average pooling, dropout and head."""

    def __init__(self, head: Head, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Sequential(*convolution(WIDTHS[-1], BRANCH))
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.convolution(x))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """The head's outputs from the convolution's feature maps."""
        return self.head(self.dropout(features.mean((2, 3))))  # type: ignore[no-any-return]


class Compact(Network):
    """The trunk halves the resolution four times; images have at least 16x16 pixels."""

    HEADS = ("gender", "age")

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        inputs = 1 if config.grayscale else 3
        blocks: list[nn.Module] = []
        for width in WIDTHS:
            blocks.append(nn.Sequential(*convolution(inputs, width), nn.MaxPool2d(2)))
            inputs = width
        self.features = nn.Sequential(Pixels(config.grayscale), *blocks)
        gender, age = gender_head(config, classes, BRANCH), age_head(config, BRANCH)
        self.gender = None if gender is None else Branch(gender, config.dropout)
        self.age = None if age is None else Branch(age, config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def classify(self, features: torch.Tensor) -> Outputs:
        return outputs(
            None if self.gender is None else self.gender(features), None if self.age is None else self.age(features)
        )

    def gender_features(self, x: torch.Tensor) -> torch.Tensor:
        """The feature maps of the gender branch."""
        assert self.gender is not None, "the network has no gender head"
        return self.gender.convolution(self.features(x))  # type: ignore[no-any-return]

    def gender_logits(self, features: torch.Tensor) -> torch.Tensor:
        assert self.gender is not None, "the network has no gender head"
        logits = outputs(self.gender.classify(features), None).gender
        assert logits is not None
        return logits

    def outputs_and_gender_features(self, x: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
        assert self.gender is not None, "the network has no gender head"
        trunk = self.features(x)
        features = self.gender.convolution(trunk)
        return outputs(self.gender.classify(features), None if self.age is None else self.age(trunk)), features

    def gender_direction(self) -> torch.Tensor | None:
        return None if self.gender is None else direction(self.gender.head)

    def stages(self) -> list[list[nn.Module]]:
        return [[block] for block in self.features if not isinstance(block, Pixels)]  # type: ignore[attr-defined]
