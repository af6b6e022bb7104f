"""Creates a model from its options."""

from __future__ import annotations

from hpcgender.models.compact import Compact
from hpcgender.models.config import ModelConfig
from hpcgender.models.network import Network
from hpcgender.models.registry import check_model, family
from hpcgender.models.resnet import ResNet
from hpcgender.models.vgg import VGG


def create(config: ModelConfig, classes: int) -> Network:
    """The model that `config` describes for `classes` genders, on the CPU, randomly initialised, nothing frozen.

    Raises UserError if there is no model of that name.
    """
    check_model(config.model)
    if family(config.model) == "vgg":
        return VGG(config, classes)
    if config.model == "compact":
        return Compact(config, classes)
    return ResNet(config, classes)
