"""The options of a model: architecture, heads, losses and initial weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hpcgender.checkpoint_file import checkpoint_file
from hpcgender.models.registry import STAGES, TIMM, check_model, family
from hpcgender.models.weights_file import weights_format
from shard_tools.base.commands import default_is
from shard_tools.base.documents import restored_part
from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES

TORCHVISION = "torchvision:"
WIDEST = 4.0
"""A larger --width is a slip: it has more than 16 times the parameters."""
LARGEST_IMAGE = 4096
"""Pixels of a side: what is more is a slip, or a file that would fill the memory."""
WEB = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture, tasks, losses and initial weights."""

    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "se_resnet50"
    """Architecture: resnet or se_resnet with 18, 34, 50, 101 or 152; vgg11, 13, 16 or 19, with batch normalisation
    vgg11_bn etc.; compact; or timm:NAME, any image model of timm (extra timm). `hpcgender models` lists their
    parameters, multiply-accumulates and memory."""
    width: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """Channels of all convolutions of a ResNet, VGG or compact, and of VGG's hidden layers, relative to the paper's and
    rounded to multiples of 8 (the width multiplier of MobileNets, arXiv 1704.04861): 0.5 has about a quarter of the
    parameters and multiply-accumulates. Widths that --head-layers and --branch-layers give stay as they are."""
    output_stride: Literal[8, 16, 32] = 32
    """Image size divided by the size of the last feature map, for ResNets and models of timm that take it: 16 or 8 make
    heat maps finer and cost a ResNet 1.5 to 1.7 or about 5 times the computation."""
    stem: Literal["standard", "small"] = "standard"
    """First layers of a ResNet: standard (7x7 convolution with stride 2, max pooling), or small (3x3 convolution with
    stride 1, for images of 32 to 64 pixels), which costs about 15 times the computation and 10 to 15 times the memory;
    with --output-stride 8, three to four times the computation."""
    grayscale: bool = False
    """Convert images to grayscale in the network, whose first layer has one input channel; pretrained weights are
    summed over the colour channels."""
    zero_init: bool = True
    """Initialise the last batch-norm weight of each ResNet block with 0, so that blocks start as identities (arXiv
    1706.02677)."""
    dropout: float = 0.5
    """Dropout probability before the last layers of vgg and compact, and after each of --head-layers. ResNets and
    models of timm have no other dropout."""
    head_layers: Annotated[tuple[int, ...], default_is("none", "WIDTH...")] = ()
    """Widths of the hidden layers, with ReLU, in the head of each task, e.g. 256 64. Heat maps are then Grad-CAM, which
    is exact for linear heads only."""
    head_norm: bool = False
    """Batch normalisation in the hidden layers of heads."""
    branch_layers: Annotated[tuple[int, ...], default_is("one of 128 without pooling", "WIDTH...")] = ()
    """Channels of the convolutions in each task's branch of compact, each with batch normalisation and 2x2 pooling; the
    last maps are flattened. E.g. 128 128. Heat maps are then Grad-CAM."""
    drop_path: float = 0.0
    """Drop-path probability (stochastic depth, arXiv 1603.09382) of models of timm that take it, e.g. 0.1."""
    tasks: tuple[Literal["gender", "age"], ...] = ("gender",)
    """Tasks to train: gender, age, or both. An image without the label of a task is ignored in its loss."""
    gender_loss: Literal["ce", "bce"] = "ce"
    """Loss of gender: cross-entropy of two logits (ce), or binary cross-entropy of one (bce)."""
    age_loss: Literal["l1", "mse", "smooth_l1", "expectation"] = "l1"
    """Loss of age: absolute, squared or smooth L1 error in years; or the cross-entropy of a distribution over the years
    0 to 100, whose expectation is the predicted age (DEX: Rothe et al., IJCV 2018)."""
    gender_weight: float = 1.0
    """Weight of the gender loss in the total loss."""
    age_weight: float = 0.1
    """Weight of the age loss in the total loss."""
    label_smoothing: float = 0.0
    """Label smoothing of gender, e.g. 0.1 (arXiv 1512.00567). 0: off."""
    class_weights: Annotated[
        tuple[float, ...] | Literal["balanced"], default_is("equal weights", "balanced|FEMALE MALE")
    ] = ()
    """Class weights in the gender loss, e.g. 1 2: a male image counts twice. balanced: inversely proportional to the
    images of each class in the training split, 1 in the mean."""
    pretrained: Annotated[str, default_is("random initialisation", "torchvision:NAME|timm:TAG|FILE|URL")] = ""
    """Initial weights: torchvision's by name, e.g. torchvision:IMAGENET1K_V2; those of a timm:NAME by timm's tag, e.g.
    timm:augreg_in21k_ft_in1k; or a file or URL with a checkpoint of hpcgender (of a run, its best one) or a state dict
    of torchvision or timm. Heads of another shape are initialised at random."""
    freeze: Annotated[Literal["none", "backbone"] | int, tyro.conf.arg(metavar="none|backbone|STAGES")] = "none"
    """Layers of --pretrained to freeze: the backbone (all but the heads), or its first STAGES stages, e.g. 2. Frozen
    batch normalisation keeps its running statistics."""

    @property
    def task_weights(self) -> dict[str, float]:
        """The weight of each task's loss in the sum, by the task's name."""
        return {task: getattr(self, f"{task}_weight") for task in self.tasks}

    def map_side(self, image_size: int) -> int:
        """Cells along each side of the feature maps from which heat maps are made; 0 if only the model itself knows."""
        if family(self.model) == "timm":
            return 0
        if "resnet" in family(self.model):
            return math.ceil(image_size / (8 if self.stem == "small" else self.output_stride))
        return image_size // 16 >> max(len(self.branch_layers) - 1, 0)

    @property
    def finer_maps(self) -> str:
        """What to train with for heat maps of more cells than one."""
        return f"{'--output-stride 8 or ' if 'resnet' in family(self.model) else ''}a larger --image-size"

    def check_image_size(self, image_size: int) -> None:
        """Raises UserError for images that are too small for the network, or too large for any.

        A model of timm is asked when it is made.
        """
        least = 16 << len(self.branch_layers) if self.model == "compact" else 16 if self.stem == "small" else 32
        least = 1 if family(self.model) == "timm" else least
        if image_size < least:
            raise UserError(f"--image-size {image_size}: {self.model} takes images of {least} pixels or more")
        if image_size > LARGEST_IMAGE:
            raise UserError(f"--image-size {image_size}: {LARGEST_IMAGE} pixels are the most")

    def check_width(self) -> None:
        """Raises UserError for a width out of range, and for another one than 1 of a model of timm."""
        if not 0 < self.width <= WIDEST:
            raise UserError(f"--width {self.width:g} must be above 0 and at most {WIDEST:g}")
        if self.width != 1 and family(self.model) == "timm":
            raise UserError(f"{self.model} has no --width {self.width:g}: choose timm's widths by the model's name")

    def check(self) -> None:
        """Raises UserError for values out of range and options that exclude each other."""
        check_model(self.model)
        self.check_width()
        kind = family(self.model)
        if "resnet" not in kind:
            for field in ("stem",) if kind == "timm" else ("output_stride", "stem"):
                if getattr(self, field) != getattr(ModelConfig, field):
                    option = f"--{field.replace('_', '-')} {getattr(self, field)}"
                    raise UserError(f"{self.model} has no {option}: use a resnet, or leave the option out")
        if self.branch_layers and self.model != "compact":
            raise UserError(f"{self.model} has no --branch-layers: use compact, or leave the option out")
        for field in ("head_layers", "branch_layers"):
            if any(width < 1 for width in getattr(self, field)):
                raise UserError(f"--{field.replace('_', '-')} needs positive widths, such as 256 64")
        if self.head_norm and not self.head_layers:
            raise UserError("--head-norm needs --head-layers")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"--tasks {' '.join(self.tasks)}: give gender, age, or both, each once")
        for task in self.tasks:
            if getattr(self, f"{task}_weight") <= 0:
                raise UserError(f"--{task}-weight must be positive; not to train {task}, leave it out of --tasks")
        if self.drop_path and kind != "timm":
            raise UserError(f"{self.model} has no --drop-path: use a model of timm, or leave the option out")
        for field in ("label_smoothing", "dropout", "drop_path"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must be at least 0 and below 1")
        weights = self.class_weights
        if weights and weights != "balanced" and (len(weights) != len(CLASSES) or min(weights) <= 0):
            raise UserError(
                f"--class-weights needs {len(CLASSES)} positive numbers, for {' and '.join(CLASSES)}, or balanced"
            )
        if self.pretrained.startswith(TORCHVISION) and kind not in ("resnet", "vgg"):
            raise UserError(f"torchvision has no weights of {self.model}: use a resnet or vgg, or give a file or URL")
        if self.pretrained.startswith(TORCHVISION) and self.width != 1:
            raise UserError(
                f"torchvision has no weights of {self.model} with --width {self.width:g}: leave it out, or give a file "
                "or URL"
            )
        if self.pretrained.startswith(TIMM) and kind != "timm":
            raise UserError(f"{self.pretrained} is for a model of timm: give --model {TIMM}NAME, or a file or URL")
        if self.freeze != "none" and not self.pretrained:
            raise UserError(f"--freeze {self.freeze} needs pretrained weights: give --pretrained")
        last = STAGES.get(kind)  # a model of timm is asked when it is made
        if isinstance(self.freeze, int) and (self.freeze < 1 or (last and self.freeze > last)):
            raise UserError(f"--freeze {self.freeze}: {self.model} has stages from 1{f' to {last}' if last else ' on'}")

    def check_pretrained(self) -> None:
        """Raises UserError if --pretrained names a file that is missing or holds no weights.

        A resumed run does not need it any more.
        """
        if not self.pretrained or self.pretrained.startswith((TORCHVISION, TIMM, *WEB)):
            return
        path = checkpoint_file(Path(self.pretrained))
        if not path.is_file():
            raise UserError(
                f"no file {self.pretrained}: give --pretrained a file, a URL, or {TORCHVISION}IMAGENET1K_V1"
            )
        weights_format(path)


def read_model_config(values: Mapping[str, Any], path: Path, again: str) -> ModelConfig:
    """The model's options in a configuration; UserError with its file and the advice `again` if they are damaged."""
    return restored_part(ModelConfig, values, path, again)
