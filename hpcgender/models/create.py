"""Creates a model from its options."""

from __future__ import annotations

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
    if family(config.model) == "timm":
        from hpcgender.models.timm_network import Timm  # and timm, which takes seconds

        return Timm(config, classes, image_size)
    if family(config.model) == "vgg":
        return VGG(config, classes)
    if config.model == "compact":
        return Compact(config, classes)
    return ResNet(config, classes)
