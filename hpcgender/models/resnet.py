"""ResNet v1.5 (He et al., arXiv 1512.03385) and SE-ResNet (Hu et al., arXiv 1709.01507).

The state-dict keys are torchvision's `resnet*`, and timm's `seresnet*` for the squeeze-and-excitation ones; the age
head is `fc_age`.
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
    direction,
    gender_head,
    outputs,
    scaled,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate from the means of all channels; the bottleneck has 1/16 of them, see `scaled`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = scaled(channels, 1 / 16)
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()  # type: ignore[no-any-return]


def conv3x3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, dilations: tuple[int, int], squeeze_excitation: bool
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride, dilations[0])
        self.bn1 = BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, dilation=dilations[1])
        self.bn2 = BatchNorm2d(width)
        self.last_norm = "bn2"
        self.se = SqueezeExcitation(width) if squeeze_excitation else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.se(self.bn2(self.conv2(y)))
        return self.relu(y + self.downsample(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride sits in the 3x3 one (v1.5)."""

    expansion = 4

    def __init__(
        self, inputs: int, width: int, stride: int, dilations: tuple[int, int], squeeze_excitation: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, dilations[0])
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * width)
        self.last_norm = "bn3"
        self.se = SqueezeExcitation(4 * width) if squeeze_excitation else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.se(self.bn3(self.conv3(y)))
        return self.relu(y + self.downsample(x))  # type: ignore[no-any-return]


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), BatchNorm2d(outputs))


class ResNet(Network):
    """A (SE-)ResNet.

    The last feature map has a stride of `output_stride` pixels: 32, or 16 or 8, where the last one or two stages are
    dilated instead of strided: the same parameters, finer heat maps, more computation. With the small stem it is 8.
    """

    HEADS = ("fc", "fc_age")

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        kind, _, depth = config.model.partition("resnet")
        block = BasicBlock if int(depth) < 50 else Bottleneck
        channels = 1 if config.grayscale else 3
        widths = [scaled(width, config.width) for width in WIDTHS]
        inputs = widths[0]  # the stem has as many channels as the first stage's blocks
        self.pixels = Pixels(config.grayscale)
        if config.stem == "small":
            self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, inputs, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if config.stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        reached, dilation = 1 if config.stem == "small" else 4, 1
        for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[int(depth)], strict=True), 1):
            stride = 1 if stage == 1 or reached == config.output_stride else 2
            reached *= stride
            dilated = dilation * 2 if stage > 1 and stride == 1 else dilation
            layers = []
            for number in range(blocks):
                # The first 3x3 convolution of a dilated stage has the dilation of the stage before.
                first = dilation if number == 0 else dilated
                layers.append(block(inputs, width, stride if number == 0 else 1, (first, dilated), kind == "se_"))
                inputs = width * block.expansion
            dilation = dilated
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.initialise(config.zero_init)
        self.fc = gender_head(config, classes, inputs)
        self.fc_age = age_head(config, inputs)

    def initialise(self, zero_init: bool) -> None:
        """He initialisation; with `zero_init` blocks start as identities (Goyal et al., arXiv 1706.02677, 5.1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, BasicBlock | Bottleneck) and zero_init:
                nn.init.zeros_(getattr(module, module.last_norm).weight)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature maps, (n, channels, ceil(h / output_stride), ceil(w / output_stride))."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.pixels(x)))))
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return x

    def classify(self, features: torch.Tensor) -> Outputs:
        """Global average pooling and a linear layer per task."""
        means = features.mean((2, 3))
        return outputs(None if self.fc is None else self.fc(means), None if self.fc_age is None else self.fc_age(means))

    def stages(self) -> list[list[nn.Module]]:
        layers = [self.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]
        return [[self.conv1, self.bn1, layers[0]], *([layer] for layer in layers[1:])]

    def layers(self) -> list[list[nn.Module]]:
        """The first convolution and every block."""
        blocks = [block for stage in (1, 2, 3, 4) for block in self.get_submodule(f"layer{stage}").children()]
        return [[self.conv1, self.bn1], *([block] for block in blocks)]

    def gender_direction(self) -> torch.Tensor | None:
        return None if self.fc is None else direction(self.fc)
