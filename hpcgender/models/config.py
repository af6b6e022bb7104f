"""What a user may set of a model: the network, its heads, their losses, and the weights it begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hpcgender.models.registry import STAGES, check_model, family
from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES

TORCHVISION = "torchvision:"
WEB = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Describes a model and how it learns."""

    model: str = "se_resnet50"
    """resnet or se_resnet 18|34|50|101|152, vgg 11|13|16|19 or the same with _bn, or compact: see hpcgender models."""
    output_stride: Literal[8, 16, 32] = 32
    """Pixels between cells of a ResNet's last feature map: less gives finer heat maps and costs more."""
    stem: Literal["standard", "small"] = "standard"
    """A ResNet's first layers: small, for images of 32 to 64 pixels, is 3x3 alone and makes cells 8 pixels apart."""
    grayscale: bool = False
    """The network averages the colours itself; pretrained weights of its first layer are summed over them."""
    zero_init: bool = True
    """A ResNet's blocks begin as their shortcuts: the last normalisation of each starts at 0."""
    dropout: float = 0.5
    """Part of the activations dropped before the last layers of vgg and compact, in training."""
    tasks: tuple[Literal["gender", "age"], ...] = ("gender",)
    """What the model learns: gender, age, or both at once. Images without a label count for nothing in its loss."""
    gender_loss: Literal["ce", "bce"] = "ce"
    """Cross-entropy of two outputs, or binary cross-entropy of one."""
    age_loss: Literal["l1", "mse", "smooth_l1", "expectation"] = "l1"
    """Of the difference in years; or of a distribution over the years 0 to 100, whose expectation is the age."""
    gender_weight: float = 1.0
    """Of the gender loss in the sum of both."""
    age_weight: float = 0.1
    """Of the age loss in the sum of both."""
    label_smoothing: float = 0.0
    """Part of each gender label that is spread over both classes."""
    loss_weights: tuple[float, ...] = ()
    """A number for each class, female then male: how much its images count in the gender loss."""
    pretrained: Annotated[str, tyro.conf.arg(metavar="torchvision:NAME|FILE|URL")] = ""
    """Weights to begin with: torchvision's by name; a checkpoint of ours; torchvision's or timm's in a file."""
    freeze: Literal["none", "backbone"] | int = "none"
    """Pretrained layers that stay as they are: all before the heads, or the first stages, so many of them."""

    @property
    def task_weights(self) -> dict[str, float]:
        """The weight of each task's loss in the sum, by the task's name."""
        return {task: getattr(self, f"{task}_weight") for task in self.tasks}

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        check_model(self.model)
        kind = family(self.model)
        if "resnet" not in kind:
            for field in ("output_stride", "stem"):
                if getattr(self, field) != getattr(ModelConfig, field):
                    option = f"--{field.replace('_', '-')} {getattr(self, field)}"
                    raise UserError(f"{self.model} has no {option}: take a resnet, or leave it out")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"--tasks {' '.join(self.tasks)}: give gender, age, or both, each once")
        for task in self.tasks:
            if getattr(self, f"{task}_weight") <= 0:
                raise UserError(f"--{task}-weight must be positive; to leave {task} out, leave it out of --tasks")
        for field in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must be at least 0 and below 1")
        if self.loss_weights and (len(self.loss_weights) != len(CLASSES) or min(self.loss_weights) <= 0):
            raise UserError(f"--loss-weights needs {len(CLASSES)} positive numbers, for {' and '.join(CLASSES)}")
        if self.pretrained.startswith(TORCHVISION) and kind not in ("resnet", "vgg"):
            raise UserError(f"torchvision has no weights of {self.model}: take a resnet or vgg, or a FILE or URL")
        if self.freeze != "none" and not self.pretrained:
            raise UserError(f"--freeze {self.freeze} keeps weights as they are: say which with --pretrained")
        if isinstance(self.freeze, int) and not 1 <= self.freeze <= STAGES[kind]:
            raise UserError(f"--freeze {self.freeze}: {self.model} has stages 1 to {STAGES[kind]}")
        check_others = getattr(super(), "check", None)
        if check_others:
            check_others()

    def check_pretrained(self) -> None:
        """Raises UserError if --pretrained names a file that is not there. A run that goes on needs it no more."""
        is_path = not self.pretrained.startswith((TORCHVISION, *WEB))
        if self.pretrained and is_path and not Path(self.pretrained).is_file():
            raise UserError(
                f"no file {self.pretrained}: give --pretrained a file, a URL, or {TORCHVISION}IMAGENET1K_V1"
            )


def read_model_config(values: Mapping[str, Any]) -> ModelConfig:
    """The model's options among those that a checkpoint or a run's config.json holds; KeyError if one is missing."""
    options: dict[str, Any] = {}
    for field in fields(ModelConfig):
        value = values[field.name]
        options[field.name] = tuple(value) if isinstance(value, list) else value
    return ModelConfig(**options)
