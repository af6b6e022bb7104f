"""What all networks share: the pixels they begin with, the heads they end with, and the way between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from hpcgender.models.config import ModelConfig

YEARS = 101
"""Outputs of an age distribution: the years 0 to 100."""
FIRST_AGE = 30.0
"""Years that a fresh network says of everybody, so that the first steps need not learn the mean age from 0."""


class Outputs(NamedTuple):
    """What a network says of n images: float32, also under autocast; None for a task that it was not made for."""

    gender: torch.Tensor | None = None
    """Logits (n, classes). With binary cross-entropy they are [0, z] of the one output z: their softmax is sigmoid(z),
    and their cross-entropy its binary cross-entropy."""
    age: torch.Tensor | None = None
    """Years (n,)."""
    age_logits: torch.Tensor | None = None
    """Logits (n, 101) of the years 0 to 100, where age is the expectation of a distribution."""


class Pixels(nn.Module):
    """The input of a network: images float (n, 3, h, w) in [-1, 1], normalised as its pretrained weights expect it, and
    averaged to (n, 1, h, w) if it is for grey images.

    The state dict has the normalisation if there is any: without one, its keys are those of torchvision and timm.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, grayscale: bool) -> None:
        super().__init__()
        self.grayscale = grayscale
        self.normalised = False
        self.register_buffer("scale", torch.ones(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.zeros(3, 1, 1), persistent=False)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """From now on gives (p - mean) / std of pixels p in [0, 1], where images are 2 p - 1; three numbers each."""
        means, stds = (self.scale.new_tensor(values)[:, None, None] for values in (mean, std))
        self.normalised = True
        self.register_buffer("scale", 0.5 / stds)
        self.register_buffer("shift", (0.5 - means) / stds)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}scale" in state_dict:
            self.normalise((0.5,) * 3, (0.5,) * 3)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.normalised:
            x = x * self.scale + self.shift
        return x.mean(1, keepdim=True) if self.grayscale else x


class Head(nn.Linear):
    """The last layer of a task, in the format of its weights also under autocast: at 64 years, bfloat16 has steps of
    half a year."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_meta:  # counting what a model costs: there is no autocast to leave
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def gender_head(config: ModelConfig, classes: int, inputs: int) -> Head | None:
    """The head for gender, if that is a task: logits of the classes, or one."""
    if "gender" not in config.tasks:
        return None
    if config.gender_loss == "bce":
        assert classes == 2, "binary cross-entropy tells two classes apart"
    return Head(inputs, 1 if config.gender_loss == "bce" else classes)


def age_head(config: ModelConfig, inputs: int) -> Head | None:
    """The head for age, if that is a task: years, or logits of the years 0 to 100."""
    if "age" not in config.tasks:
        return None
    head = Head(inputs, YEARS if config.age_loss == "expectation" else 1)
    nn.init.constant_(head.bias, 0.0 if config.age_loss == "expectation" else FIRST_AGE)
    return head


def direction(head: nn.Linear) -> torch.Tensor:
    """Weights (inputs,) of a gender head's inputs in logit 1 minus logit 0."""
    return head.weight[0] if len(head.weight) == 1 else head.weight[1] - head.weight[0]


def outputs(gender: torch.Tensor | None, age: torch.Tensor | None) -> Outputs:
    """What the heads' raw outputs mean: gender (n, classes) or (n, 1), age (n, 1) or (n, 101).

    The expectation of a distribution over years is DEX (Rothe et al., IJCV 2018).
    """
    if gender is not None and gender.shape[1] == 1:
        gender = torch.cat([torch.zeros_like(gender), gender], 1)
    if age is None or age.shape[1] == 1:
        return Outputs(gender, None if age is None else age[:, 0])
    years = torch.arange(YEARS, dtype=age.dtype, device=age.device)
    return Outputs(gender, (age.softmax(1) * years).sum(1), age)


class Network(nn.Module):
    """A network of the registry. Images are float (n, 3, h, w) in [-1, 1]."""

    HEADS: ClassVar[tuple[str, ...]]
    """Names of the modules that belong to a task; all others are the backbone."""

    features: Callable[[torch.Tensor], torch.Tensor]
    """Images to the last feature maps (n, channels, cells down, cells across) that all tasks share."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen_norms: list[str] = []
        """Names of frozen normalisation layers: they stay in eval mode, and so their running statistics as they are."""

    def classify(self, features: torch.Tensor) -> Outputs:
        """What the heads say of feature maps."""
        raise NotImplementedError

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage that can be frozen, from the input on."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> Outputs:
        return self.classify(self.features(x))

    def gender_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images to the last feature maps (n, channels, cells down, cells across) on the way to gender."""
        return self.features(x)

    def gender_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, 2) of what `gender_features` gives, of a network that tells gender."""
        logits = self.classify(features).gender
        assert logits is not None, "the network was not made for gender"
        return logits

    def gender_direction(self) -> torch.Tensor | None:
        """Weights (channels,) of the means of `gender_features` in logit 1 minus logit 0; None if that is not linear
        in them."""
        return None

    def in_head(self, name: str) -> bool:
        """Whether a parameter, buffer or module of that name belongs to a task."""
        return any(name == head or name.startswith(f"{head}.") for head in self.HEADS)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """From now on normalises images as weights from elsewhere expect it; three numbers each, see Pixels."""
        for module in self.modules():
            if isinstance(module, Pixels):
                module.normalise(mean, std)

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        for name in self.frozen_norms:
            self.get_submodule(name).eval()
        return self
