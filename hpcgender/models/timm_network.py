"""Any image model of timm with the heads of this suite.

The state-dict keys are timm's below `backbone.`, without its classifier, in whose place are `gender` and `age`.
"""

from __future__ import annotations

import fnmatch
import logging
import warnings
from collections.abc import Mapping, Sequence
from threading import Lock
from types import SimpleNamespace
from typing import Any

import timm
import torch
from torch import nn

from hpcgender.models.config import ModelConfig
from hpcgender.models.network import Network, Outputs, Pixels, age_head, direction, gender_head, outputs
from hpcgender.models.read_weights import Weights
from hpcgender.models.registry import TIMM
from hpcgender.models.timm_maps import Maps, detaching, find_maps, layout_of
from shard_tools.base.errors import UserError, one_line, unknown

BACKBONE = "backbone."
"""Before timm's own keys."""
FAULTS = (TypeError, ValueError, AssertionError, RuntimeError, LookupError, AttributeError)
"""What timm's models raise for options and images that they do not take."""

_searching = Lock()


class Timm(Network):
    """A model of timm for images of one size."""

    HEADS = ("gender", "age")

    def __init__(self, config: ModelConfig, classes: int, image_size: int | None) -> None:
        """Without an image size it is the one that timm gives the model. UserError if the model does not take it, or
        an option."""
        super().__init__()
        self.name = config.model
        self.size = image_size or known(self.name).input_size[1]
        self.options = options(config, self.size)
        """Of timm.create_model."""
        self.pixels = Pixels(config.grayscale)
        self.backbone = self.create(num_classes=0)
        features, width = self.tried()
        layout = layout_of(features, getattr(self.backbone, "num_prefix_tokens", 0))
        self.side = layout.side if layout else 0
        """Cells along each side of the last features; 0 if they are none of a square."""
        self.gender = gender_head(config, classes, width)
        self.age = age_head(config, width)
        self._maps: Maps | None = None

    def create(self, **more: Any) -> nn.Module:
        """timm's model, with random weights unless `more` says otherwise; UserError if an option does not fit."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of timm about its own code
                made: nn.Module = timm.create_model(self.name.removeprefix(TIMM), **self.options, **more)
        except FAULTS as error:
            if more.get("pretrained"):
                raise
            flags = {"img_size": "--image-size", "output_stride": "--output-stride", "drop_path_rate": "--drop-path"}
            given = [f"{flag} {self.options[name]}" for name, flag in flags.items() if name in self.options]
            asked = f" with {' '.join(given)}" if given else ""
            raise UserError(f"timm cannot make {self.name}{asked} ({one_line(error)[:200]}): leave that out") from None
        return made

    def tried(self) -> tuple[Any, int]:
        """An image's features, and the width of what is pooled of them; UserError if the model takes no such image."""
        was_training = self.backbone.training
        self.backbone.eval()
        image = torch.zeros(1, self.options["in_chans"], self.size, self.size)
        try:
            with torch.no_grad():
                features: Any = self.backbone.forward_features(image)  # type: ignore[operator]
                pooled: Any = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        except FAULTS as error:
            own = known(self.name).input_size[1]
            raise UserError(
                f"--image-size {self.size}: {self.name} does not take it ({one_line(error)[:200]}): timm's own is {own}"
            ) from None
        finally:
            self.backbone.train(was_training)
        if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2:
            raise UserError(f"{self.name} has no features of a whole image to classify: use another model")
        return features, pooled.shape[1]

    def features(self, x: torch.Tensor) -> Any:
        """timm's last features, before pooling, in its own layout."""
        return self.backbone.forward_features(self.pixels(x))  # type: ignore[operator]

    def classify(self, features: Any) -> Outputs:
        pooled = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return outputs(
            None if self.gender is None else self.gender(pooled), None if self.age is None else self.age(pooled)
        )

    @property
    def maps(self) -> Maps:
        """Where the maps of heat maps are, found when first asked for; in eval mode. UserError if there are none."""
        with _searching:
            if self._maps is None:
                parameter = next(self.backbone.parameters())
                image = torch.zeros(1, 3, self.size, self.size, device=parameter.device, dtype=parameter.dtype)
                with torch.autocast(parameter.device.type, enabled=False):
                    self._maps = find_maps(self.backbone, self.pixels(image), self.name)
        return self._maps

    def outputs_and_gender_features(self, x: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
        maps = self.maps
        if maps.layer:
            with detaching() as detached, torch.enable_grad():
                predicted = self(x)
            return predicted, detached[0]
        features = self.features(x)
        seen, gradients = self.detached(maps.layout.maps(features))
        with gradients:
            return self.classify(maps.layout.features(seen, features.detach())), seen

    def gender_direction(self) -> torch.Tensor | None:
        return direction(self.gender) if self.gender is not None and self.maps.linear else None

    def stages(self) -> list[list[nn.Parameter]]:
        """timm's coarse groups, its stem with the first."""
        groups = self.groups(coarse=True)
        return [[*groups[0], *groups[1]], *groups[2:]] if len(groups) > 1 else groups

    def layers(self) -> list[list[nn.Parameter]]:
        return self.groups(coarse=False)

    def groups(self, *, coarse: bool) -> list[list[nn.Parameter]]:
        """timm's groups of parameters, beginning at the input, without those that are in none; empty if it has none."""
        if not hasattr(self.backbone, "group_matcher"):
            return []
        ungrouped = "-"  # no parameter has such a name
        named = SimpleNamespace(named_parameters=lambda: [*self.backbone.named_parameters(), (ungrouped, None)])
        groups = timm.models.group_parameters(named, self.backbone.group_matcher(coarse=coarse))  # type: ignore[operator]
        return [
            [self.backbone.get_parameter(name) for name in names]
            for _, names in sorted(groups.items())
            if ungrouped not in names
        ]

    def undecayed(self) -> set[str]:
        patterns = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else ()  # type: ignore[operator]
        names = [name for name, _ in self.backbone.named_parameters()]
        return {BACKBONE + name for pattern in patterns for name in fnmatch.filter(names, pattern)}

    def draws(self) -> bool:
        return True  # drop path and others have many classes

    def synchronised(self) -> Network:
        network: Network = timm.layers.convert_sync_batchnorm(self)
        return network

    def pretrained_weights(self, tag: str) -> Weights:
        """The weights that timm knows by a tag, downloaded to its cache, under this network's names."""
        name = self.name.removeprefix(TIMM)
        tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{name}.*")]
        if tag not in tags:
            raise (
                unknown(f"timm weights of {self.name}", tag, tags)
                if tags
                else UserError(f"timm has no weights of {self.name}: give a file or URL")
            )
        weights = known(f"{name}.{tag}")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of each try
        try:
            filled = self.create(pretrained=True, pretrained_cfg=tag)
        except (OSError, *FAULTS) as error:  # no network, or weights that do not fit
            raise UserError(
                f"cannot load {TIMM}{tag} for {self.name} ({one_line(error)[:200]}): on a machine with network access, "
                f"download {weights.hf_hub_id or weights.url} to the cache of Hugging Face (HF_HOME), or give a file"
            ) from None
        return Weights(self.own_names(filled, weights), weights.mean, weights.std)

    def adapted(self, weights: Weights, source: str) -> Weights:
        """Weights of timm's model, or of a network like this one, under this network's names.

        timm's own loading adapts them: to another image size, to grayscale, and from older names. UserError if they
        do not fit.
        """
        cfg = known(self.name)
        state = timm.models.clean_state_dict(dict(weights.state))
        ours = any(key.startswith(BACKBONE) for key in state)
        others = {key: value for key, value in state.items() if ours and not key.startswith(BACKBONE)}
        inner = {key.removeprefix(BACKBONE): value for key, value in state.items() if key not in others}
        classifiers = classifiers_of(cfg)
        count = next((len(inner[f"{name}.bias"]) for name in classifiers if f"{name}.bias" in inner), 0)
        if not count:  # timm's loading wants all keys to be the model's, which then has no classifier
            inner = {key: value for key, value in inner.items() if not below(key, classifiers)}
        twice: list[nn.Module] = []
        try:
            for seed in (0, 1):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    overlay = {"state_dict": dict(inner), "num_classes": count}
                    twice.append(self.create(pretrained=True, pretrained_cfg_overlay=overlay, num_classes=count))
        except FAULTS as error:
            trained_as = f"--model {weights.model}" if weights.model not in ("", self.name) else "the --model"
            raise UserError(
                f"{source} does not fit {self.name} ({one_line(error)[:300]}): give {trained_as} that it was trained as"
            ) from None
        filled, again = twice
        random = again.state_dict()
        for key, value in filled.state_dict().items():  # timm lets some models miss weights, which are then random
            if value.isfinite().all() and not torch.equal(value, random[key]):
                raise UserError(f"{source} does not fit {self.name}: {key} is missing there")
        mean, std = (None, None) if ours else (cfg.mean, cfg.std)
        return Weights({**self.own_names(filled, cfg), **others}, mean, std, weights.key)

    def own_names(self, filled: nn.Module, cfg: Any) -> Mapping[str, torch.Tensor]:
        """The weights of timm's model under this network's names, its classifier as the gender head if it is one
        linear layer: left out are several, and any with normalisation, which is in no backbone."""
        classifiers, state = classifiers_of(cfg), filled.state_dict()
        backbone = self.backbone.state_dict().keys()
        renamed = {BACKBONE + key: value for key, value in state.items() if key in backbone}
        head = {key: value for key, value in state.items() if key not in backbone}
        if len(classifiers) == 1 and all(below(key, classifiers) for key in head):
            renamed |= {f"gender{key.removeprefix(classifiers[0])}": value for key, value in head.items()}
        return renamed


def known(name: str) -> Any:
    """What timm says of a model or of its weights: the size of its images, its classifier, mean and std of pixels."""
    return timm.get_pretrained_cfg(name.removeprefix(TIMM)) or timm.models.PretrainedCfg()


def classifiers_of(cfg: Any) -> tuple[str, ...]:
    """The names of a model's classifiers: distilled models have several."""
    return (cfg.classifier,) if isinstance(cfg.classifier, str) else tuple(cfg.classifier or ())


def below(key: str, classifiers: Sequence[str]) -> str:
    """The classifier that a key is of; empty if it is of none."""
    return next((name for name in classifiers if key.startswith(f"{name}.")), "")


def options(config: ModelConfig, image_size: int) -> dict[str, Any]:
    """The options of timm.create_model but for classes and weights."""
    found: dict[str, Any] = {"in_chans": 1 if config.grayscale else 3}
    if known(config.model).fixed_input_size:
        found["img_size"] = image_size
    if config.output_stride != ModelConfig.output_stride:
        found["output_stride"] = config.output_stride
    if config.drop_path:
        found["drop_path_rate"] = config.drop_path
    return found
