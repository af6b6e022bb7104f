"""Creates a model from its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hpcgender.models.compact import Compact
from hpcgender.models.config import ModelConfig
from hpcgender.models.network import Network
from hpcgender.models.registry import check_model, family
from hpcgender.models.resnet import ResNet
from hpcgender.models.vgg import VGG


def create(config: ModelConfig, classes: int, image_size: int | None = None) -> Network:
    """The model that `config` describes for `classes` genders, on the CPU, randomly initialised, nothing frozen.

    Models of timm are for images of one size, by default the one that timm gives them; others take any. Raises
    UserError if there is no model of that name, or if it does not take such images or an option.
    """
    check_model(config.model)
    config.check_width()
    if family(config.model) == "timm":
        from hpcgender.models.timm_network import Timm  # and timm, which takes seconds

        return Timm(config, classes, image_size)
    if family(config.model) == "vgg":
        return VGG(config, classes)
    if config.model == "compact":
        return Compact(config, classes)
    return ResNet(config, classes)


def on_meta(config: ModelConfig, classes: int, image_size: int | None = None) -> Network:
    """The same on the meta device, where tensors have no data."""
    with torch.device("meta"), _Undrawn():
        return create(config, classes, image_size)


class _Undrawn(TorchFunctionMode):
    """Leaves out normal distributions: on the meta device, where they draw nothing, the first takes a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith("normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
