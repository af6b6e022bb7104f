"""The base class of all networks, and what they share: input normalisation and heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from hpcgender.models.config import ModelConfig
from hpcgender.models.read_weights import Weights

YEARS = 101
"""Classes of an age distribution: the years 0 to 100."""
FIRST_AGE = 30.0
"""The age in years that an untrained network predicts, so that training does not start far from the mean age."""


class Outputs(NamedTuple):
    """A network's predictions for n images: float32, also under autocast; None for a task that it does not have."""

    gender: torch.Tensor | None = None
    """Logits (n, classes). With binary cross-entropy they are [0, z] for the single output z: their softmax is
    sigmoid(z), and their cross-entropy is its binary cross-entropy."""
    age: torch.Tensor | None = None
    """Years (n,)."""
    age_logits: torch.Tensor | None = None
    """Logits (n, 101) of the years 0 to 100, if age is the expectation of a distribution."""


class Pixels(nn.Module):
    """The input layer: images float (n, 3, h, w) in [-1, 1], normalised as pretrained weights expect, and averaged to
    grayscale (n, 1, h, w) if asked.

    The state dict holds the normalisation if there is one; without it, the keys are those of torchvision and timm.
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
        """Sets the normalisation (p - mean) / std of pixels p in [0, 1]; three numbers each. Images are 2 p - 1."""
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


class UncountedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation that does not count its batches: training counts those of all layers in one operation.

    Nothing is computed from these counters, and to add 1 to each was a tenth of what a step starts on a GPU.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.momentum is not None
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


class BatchNorm2d(UncountedBatchNorm, nn.BatchNorm2d):
    """Of feature maps."""


class BatchNorm1d(UncountedBatchNorm, nn.BatchNorm1d):
    """Of the values in a head."""


class Head(nn.Linear):
    """The last layer of a task, in float32 also under autocast: bfloat16 resolves an age of 64 to half a year."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_meta:  # when counting a model's cost; meta has no autocast
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class DeepHead(nn.Module):
    """A task's hidden layers, each with ReLU and dropout, and with batch normalisation if asked; then its last one."""

    def __init__(self, config: ModelConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in config.head_layers:
            linear = nn.Linear(inputs, width, bias=not config.head_norm)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
            norm = [BatchNorm1d(width)] if config.head_norm else []
            layers += [linear, *norm, nn.ReLU(inplace=True), nn.Dropout(config.dropout)]
            inputs = width
        self.hidden = nn.Sequential(*layers)
        self.head = Head(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(x))  # type: ignore[no-any-return]


def task_head(config: ModelConfig, inputs: int, outputs: int) -> Head | DeepHead:
    """A task's head: its last layer alone, or with hidden layers before it."""
    return DeepHead(config, inputs, outputs) if config.head_layers else Head(inputs, outputs)


def last_layer(head: Head | DeepHead) -> Head:
    """The last layer of a head."""
    return head.head if isinstance(head, DeepHead) else head


def gender_head(config: ModelConfig, classes: int, inputs: int) -> Head | DeepHead | None:
    """The gender head, if that is a task: a logit per class, or a single one."""
    if "gender" not in config.tasks:
        return None
    if config.gender_loss == "bce":
        assert classes == 2, "binary cross-entropy is for two classes"
    return task_head(config, inputs, 1 if config.gender_loss == "bce" else classes)


def age_head(config: ModelConfig, inputs: int) -> Head | DeepHead | None:
    """The age head, if that is a task: years, or logits of the years 0 to 100."""
    if "age" not in config.tasks:
        return None
    head = task_head(config, inputs, YEARS if config.age_loss == "expectation" else 1)
    nn.init.constant_(last_layer(head).bias, 0.0 if config.age_loss == "expectation" else FIRST_AGE)
    return head


def direction(head: Head | DeepHead) -> torch.Tensor | None:
    """The weights (inputs,) of a gender head's inputs in the log-odds, logit 1 minus logit 0; None if not linear."""
    if isinstance(head, DeepHead):
        return None
    return head.weight[0] if len(head.weight) == 1 else head.weight[1] - head.weight[0]


def scaled(channels: int, factor: float) -> int:
    """`channels` times `factor`, rounded to the nearest multiple of 8, at least 8: the width multiplier of MobileNets
    (Howard et al., arXiv 1704.04861, 3.3), with multiples of 8 as in the code of MobileNetV2 (arXiv 1801.04381)."""
    return max(8, int(channels * factor / 8 + 0.5) * 8)


def pooled(x: torch.Tensor, dim: int, cells: int) -> torch.Tensor:
    """Adaptive average pooling of one dimension; torch's own has no deterministic gradient on a GPU."""
    size = x.shape[dim]
    if size == cells:
        return x
    bounds = [(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]
    return torch.stack([x.narrow(dim, begin, end - begin).mean(dim) for begin, end in bounds], dim)


def outputs(gender: torch.Tensor | None, age: torch.Tensor | None) -> Outputs:
    """Predictions from the heads' outputs: gender (n, classes) or (n, 1), age (n, 1) or (n, 101).

    The expectation of a distribution over years is DEX (Rothe et al., IJCV 2018).
    """
    if gender is not None and gender.shape[1] == 1:
        gender = torch.cat([torch.zeros_like(gender), gender], 1)
    if age is None or age.shape[1] == 1:
        return Outputs(gender, None if age is None else age[:, 0])
    years = torch.arange(YEARS, dtype=age.dtype, device=age.device)
    return Outputs(gender, (age.softmax(1) * years).sum(1), age)


class Network(nn.Module):
    """Base class of the networks. Images are float (n, 3, h, w) in [-1, 1]."""

    HEADS: ClassVar[tuple[str, ...]]
    """Names of the heads' modules; all others are the backbone."""

    features: Callable[[torch.Tensor], torch.Tensor]
    """Images to the last feature maps (n, channels, height, width) that all tasks share; timm's in its own layout."""

    side = 0
    """Cells along each side of the last features, where only the network itself knows (ModelConfig.map_side)."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen_norms: list[str] = []
        """Names of frozen normalisation layers, which stay in eval mode and so keep their running statistics."""

    def classify(self, features: torch.Tensor) -> Outputs:
        """The heads' predictions from feature maps."""
        raise NotImplementedError

    def stages(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        """The parts of each stage that can be frozen, starting at the input; empty if there are no stages."""
        raise NotImplementedError

    def layers(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        """The parts of each layer for learning rates by layer, starting at the input; empty if there are none."""
        return self.stages()

    def undecayed(self) -> set[str]:
        """Names of parameters without weight decay, besides vectors."""
        return set()

    def forward(self, x: torch.Tensor) -> Outputs:
        return self.classify(self.features(x))

    def outputs_and_gender_features(self, x: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
        """The predictions of images, and the last feature maps (n, channels, height, width) before the gender head.

        Without a `gender_direction` the predictions have gradients with respect to these, and to nothing before them.
        """
        features, gradients = self.detached(self.features(x))
        with gradients:
            return self.classify(features), features

    def detached(self, features: torch.Tensor) -> tuple[torch.Tensor, AbstractContextManager[Any]]:
        """The features as heat maps need them, detached from what is before where these need gradients; and the context
        in which what follows is computed."""
        if self.gender_direction() is not None:
            return features, nullcontext()
        return features.detach().requires_grad_(), torch.enable_grad()

    def gender_direction(self) -> torch.Tensor | None:
        """The weights (channels,) of the spatial means of these maps in the log-odds; None if not linear."""
        return None

    def draws(self) -> bool:
        """Whether training draws random numbers in the network, as dropout does."""
        return any(isinstance(module, nn.Dropout) and module.p for module in self.modules())

    def synchronised(self) -> Network:
        """The network with batch normalisation over all ranks."""
        network: Network = nn.SyncBatchNorm.convert_sync_batchnorm(self)  # type: ignore[no-untyped-call]
        return network

    def pretrained_weights(self, tag: str) -> Weights:
        """The weights that the library of the model knows by a tag, under this network's names."""
        raise NotImplementedError

    def adapted(self, weights: Weights, source: str) -> Weights:
        """Weights as `source` has them, under this network's names; UserError if they cannot fit."""
        return weights

    def in_head(self, name: str) -> bool:
        """Whether a parameter, buffer or module of that name belongs to a head."""
        return any(name == head or name.startswith(f"{head}.") for head in self.HEADS)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the normalisation that pretrained weights expect; three numbers each, see Pixels."""
        for module in self.modules():
            if isinstance(module, Pixels):
                module.normalise(mean, std)

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        for name in self.frozen_norms:
            self.get_submodule(name).eval()
        return self
