"""Reads weights as other programs save them, without running code from the file."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpcgender.models.weights_file import AGAIN, SAVE, weights_format
from shard_tools.base.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Normalisation of pixels in [0, 1] with which torchvision's and timm's (SE-)ResNets and VGGs were trained."""
OURS = "hpcgender-checkpoint"
WRAPPED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net")
"""Keys of the weights in checkpoints of timm, torchvision, Lightning, hpcgender and others; the EMA weights first, as
those were validated."""
AVERAGED = "n_averaged"
"""A counter beside the weights of torch's AveragedModel."""


@dataclass(frozen=True)
class Weights:
    """Weights as loaded; `mean` and `std` are None if the weights hold their own normalisation."""

    state: Mapping[str, torch.Tensor]
    mean: Sequence[float] | None = IMAGENET_MEAN
    std: Sequence[float] | None = IMAGENET_STD
    key: str = ""
    """Under which key of a checkpoint they were."""
    model: str = ""
    """The architecture that a checkpoint of ours says they are of."""


class Foreign:
    """Stands for an object of another program in a file of weights, of which nothing is imported or called."""

    def __new__(cls, *_: object, **__: object) -> Foreign:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(path: Path) -> Weights:
    """The weights in a file, read without running code from it; UserError if it is damaged or holds something else."""
    content = read_safetensors(path) if weights_format(path) == "safetensors" else read_pickled(path)
    if isinstance(content, Foreign):
        raise UserError(
            f"{path} holds a whole object, {type(content).__name__}, not its weights: load it where it was made, and "
            f"{SAVE}"
        )
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no weights: give a state dict or a checkpoint")
    key, state = find_state(content, path)
    state = {name: value for name, value in state.items() if name != AVERAGED}
    ours = str(content.get("format", "")).startswith(OURS)
    if not ours:
        return Weights(state, key=key)
    config = content.get("config")
    model = config.get("model") if isinstance(config, Mapping) else None
    return Weights(state, None, None, key, model if isinstance(model, str) else "")


def find_state(content: Mapping[str, Any], path: Path) -> tuple[str, Mapping[str, torch.Tensor]]:
    """The state dict in a checkpoint and its key there, which is empty if the content is one; UserError if none is."""
    wrong = next((key for key, value in content.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is None:
        return "", content
    states = {
        key: value
        for key, value in content.items()
        if isinstance(value, Mapping) and value and all(isinstance(part, torch.Tensor) for part in value.values())
    }
    key = next((key for key in WRAPPED if key in states), None)
    if key is None and len(states) == 1:
        (key,) = states
    if key is not None:
        return key, states[key]
    known = next((key for key in WRAPPED if key in content), None)
    if known and isinstance(content[known], Foreign):
        raise UserError(
            f"{path} holds a whole object, {type(content[known]).__name__}, as {known}, not its weights: load it "
            f"where it was made, and {SAVE}"
        )
    if states:
        raise UserError(f"{path} holds several state dicts, {', '.join(states)}: save one of them alone")
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path} holds more than weights, {wrong}: save the state dict alone")
    raise UserError(f"{path} holds no tensors, but {', '.join(map(str, list(content)[:5]))}: give a state dict")


def read_safetensors(path: Path) -> Any:
    """The content of a file of safetensors; UserError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is damaged or cut short: {AGAIN}") from None


def read_pickled(path: Path) -> Any:
    """What torch.save wrote, with `Foreign` for objects that are not torch's; UserError if it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol of the pickle
            stand_ins: list[Any] = [(type(name, (Foreign,), {}), name) for name in foreign_names(path)]
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{found[1]}, an object that is" if found else "objects that are"
        raise UserError(
            f"{path} is damaged, or holds {what} not read, as that could run code: load it where it was made, and "
            f"{SAVE}"
        ) from None
    except Exception:  # a damaged file raises zipfile, unicode, runtime and many other errors
        raise UserError(f"{path} is damaged or cut short: {AGAIN}") from None


def foreign_names(path: Path) -> list[str]:
    """The names of objects in a file that are not torch's; in a file from before torch 1.6, the usual ones."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not a zip archive
        return ["argparse.Namespace"]
