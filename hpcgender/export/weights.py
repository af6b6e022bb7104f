"""A trained network's weights as the models of timm and torchvision load them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpcgender.checkpoint import Trained
from hpcgender.models.registry import TIMM, family, without_timm
from shard_tools.base.errors import UserError

KINDS = {"timm": ("resnet", "se_resnet", "timm"), "torchvision": ("resnet", "vgg")}


def peer(trained: Trained, library: str) -> tuple[nn.Module, str]:
    """The library's model of the same architecture, untrained, and the call that makes it; UserError if it has none."""
    config = trained.config
    kind = family(config.model)
    elsewhere = "export it as onnx, torch or safetensors"
    if "gender" not in config.tasks:
        raise UserError(f"{library}'s models are for classes, and this one predicts age alone: {elsewhere}")
    stem = ["--stem small"] if config.stem == "small" else []
    heads = ["--head-layers"] if config.head_layers else []
    width = [f"--width {config.width:g}"] if config.width != 1 else []
    unlike = " and ".join([*stem, *heads, *width])
    if kind not in KINDS[library] or unlike:
        own = f" with {unlike}" if unlike else ""
        raise UserError(f"{library} has no {config.model}{own} that computes the same: {elsewhere}")
    options: dict[str, Any] = {"num_classes": 2}
    if library == "timm":
        try:
            import timm
        except ImportError:
            raise without_timm() from None
        name = config.model.replace("_", "")
        if kind == "timm":
            from hpcgender.models.timm_network import known

            name, facts = config.model.removeprefix(TIMM), known(config.model)
            if not isinstance(facts.classifier, str) or (config.grayscale and not isinstance(facts.first_conv, str)):
                raise UserError(f"timm's {name} has several first or last layers: {elsewhere}")
            if facts.fixed_input_size:
                options["img_size"] = trained.image_size
        if config.output_stride != 32:
            options["output_stride"] = config.output_stride
        return timm.create_model(name, **options), f"timm.create_model({name!r}, {arguments(options)})"
    import torchvision

    if config.output_stride != 32:
        if config.model in ("resnet18", "resnet34"):
            raise UserError(
                f"torchvision has no {config.model} with --output-stride {config.output_stride}: {elsewhere}"
            )
        options["replace_stride_with_dilation"] = [False, config.output_stride == 8, True]
    call = f"torchvision.models.get_model({config.model!r}, {arguments(options)})"
    return torchvision.models.get_model(config.model, weights=None, **options), call


def arguments(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def plain_state(trained: Trained, temperature: float) -> dict[str, torch.Tensor]:
    """The weights under the libraries' names: of colour images, with a logit per class, divided by the temperature."""
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in trained.model.state_dict().items()
        if ".pixels." not in f".{name}" and not name.startswith(("fc_age.", "age."))
    }
    first = next(name for name, value in state.items() if value.ndim == 4)
    head = "classifier.6" if family(trained.name) == "vgg" else "fc"
    if family(trained.name) == "timm":
        from hpcgender.models.timm_network import known

        facts = known(trained.name)
        first, head = f"{facts.first_conv}.weight", facts.classifier
        inside = {"backbone": "", "gender": f"{head}."}
        state = {inside[name.partition(".")[0]] + name.partition(".")[2]: value for name, value in state.items()}
    if trained.config.grayscale:  # the mean of three channels, convolved
        state[first] = (state[first] / 3).repeat(1, 3, 1, 1)
    for name in (f"{head}.weight", f"{head}.bias"):
        value = state[name]
        if len(value) == 1:  # binary cross-entropy: the logit of female is 0
            value = torch.cat([torch.zeros_like(value), value])
        state[name] = value / temperature
    return state


def normalisation(trained: Trained) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels in [0, 1] with which the libraries' models get what the network gets."""
    buffers = dict(trained.model.named_buffers())
    scale = next(value for name, value in buffers.items() if name.endswith("pixels.scale")).flatten()
    shift = next(value for name, value in buffers.items() if name.endswith("pixels.shift")).flatten()
    std = 0.5 / scale
    return [round(value, 6) for value in (0.5 - shift * std).tolist()], [round(value, 6) for value in std.tolist()]
