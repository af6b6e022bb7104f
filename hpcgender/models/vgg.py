"""VGG (Simonyan and Zisserman, arXiv 1409.1556), with and without batch normalisation.

The state-dict keys are torchvision's `vgg*`; the age head is `fc_age`.
"""

from __future__ import annotations

import torch
from torch import nn

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import (
    BatchNorm2d,
    Network,
    Outputs,
    Pixels,
    age_head,
    gender_head,
    last_layer,
    outputs,
    pooled,
    scaled,
)

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CELLS = 7
HIDDEN = 4096
HEAD = 6
"""The place of the gender head in the classifier."""


class VGG(Network):
    """A VGG for images of at least 32x32 pixels."""

    HEADS = ("classifier.6", "fc_age")

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        depth, _, norm = config.model.removeprefix("vgg").partition("_")
        layers: list[nn.Module] = []
        inputs = 1 if config.grayscale else 3
        hidden = scaled(HIDDEN, config.width)
        widths = [scaled(width, config.width) for width in WIDTHS]
        for width, convolutions in zip(widths, CONVOLUTIONS[int(depth)], strict=True):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                if norm:
                    layers.append(BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential()
        self.features.add_module(
            "pixels", Pixels(config.grayscale)
        )  # with a name, so that layers keep torchvision's numbers
        for number, layer in enumerate(layers):
            self.features.add_module(str(number), layer)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * CELLS * CELLS, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
        self.initialise()
        gender = gender_head(config, classes, hidden)
        if gender is not None:
            self.classifier.append(gender)
        self.fc_age = age_head(config, hidden)
        for head in (gender, self.fc_age):
            if head is not None:
                nn.init.normal_(last_layer(head).weight, 0, 0.01)

    def initialise(self) -> None:
        """He initialisation of convolutions and small weights in linear layers, as in torchvision."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def classify(self, features: torch.Tensor) -> Outputs:
        x = pooled(pooled(features, 2, CELLS), 3, CELLS).flatten(1)
        for layer in self.classifier[:HEAD]:
            x = layer(x)
        gender = self.classifier[HEAD](x) if len(self.classifier) > HEAD else None
        return outputs(gender, None if self.fc_age is None else self.fc_age(x))

    def outputs_and_gender_features(self, x: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
        """The feature maps are those before the last pooling, with twice the resolution."""
        for layer in list(self.features)[:-1]:  # type: ignore[call-overload]
            x = layer(x)
        features, gradients = self.detached(x)
        with gradients:
            return self.classify(self.features[-1](features)), features  # type: ignore[index]

    def stages(self) -> list[list[nn.Module]]:
        stages: list[list[nn.Module]] = [[]]
        for layer in self.features:  # type: ignore[attr-defined]
            stages[-1].append(layer)
            if isinstance(layer, nn.MaxPool2d):
                stages.append([])
        return stages[:-1]
