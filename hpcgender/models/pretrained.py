"""Pretrained weights from torchvision, a file or a URL, checked key by key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

import torch

from hpcgender.checkpoint_file import checkpoint_file
from hpcgender.models.config import TORCHVISION, WEB, ModelConfig
from hpcgender.models.network import Network
from hpcgender.models.read_weights import Weights, read_weights
from hpcgender.models.registry import TIMM
from hpcgender.models.weights_file import weights_format
from shard_tools.base.errors import UserError, one_line, unknown
from shard_tools.base.text import plural

COUNTER = "num_batches_tracked"
"""A counter of batch normalisation: not needed, and missing in weights from before PyTorch 0.4.1."""


def load_pretrained(network: Network, config: ModelConfig) -> str:
    """Loads the weights that `config.pretrained` names, and returns a line on what was loaded and what was not.

    The whole backbone must match. A head that is missing or has another shape stays randomly initialised. The network
    then normalises images as the weights expect: by ImageNet's mean and std unless they hold their own.

    Raises UserError if the weights do not exist, cannot be downloaded or read, or do not match.
    """
    source = config.pretrained
    if source.startswith(TIMM):
        weights = network.pretrained_weights(source.removeprefix(TIMM))
    else:
        weights = network.adapted(find(config), source)
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}
    there = {key: value for key, value in weights.state.items() if not key.endswith(COUNTER)}
    prefix = find_prefix(there.keys(), [key for key in own if not network.in_head(key)], source)
    loaded = {key.removeprefix(prefix): value for key, value in there.items() if key.startswith(prefix)}
    normalisation = {key for key in loaded if key.endswith(("pixels.scale", "pixels.shift"))}
    for key, value in own.items():
        if config.grayscale and key in loaded and value.ndim == 4 and value.shape[1] == 1 != loaded[key].shape[1]:
            loaded[key] = loaded[key].sum(1, keepdim=True)
    backbone = {key: value for key, value in loaded.items() if key not in normalisation}
    check_backbone(network, config, own, backbone, weights.model)
    kept = [key for key in own if network.in_head(key) and not same_shape(key, own, loaded)]
    taken = {key: loaded[key] for key in loaded if key in normalisation or (key in own and key not in kept)}
    bad = next((key for key, value in taken.items() if not value.isfinite().all()), None)
    if bad:
        raise UserError(f"{source} has NaN or infinite values in {bad}: use other weights")
    network.load_state_dict(taken, strict=False)
    where = f" ({weights.key})" if weights.key.endswith("_ema") else ""
    notes = [f"pretrained from {source}{where}: {len(taken) - len(normalisation)} of {len(own)} tensors loaded"]
    if prefix:
        others = len(there) - len(loaded)
        notes.append(f"those below {prefix.rstrip('.')}" + (f", {plural(others, 'other')} left out" if others else ""))
    for head in network.HEADS:
        note = head_note(head, own, loaded, kept)
        if note:
            notes.append(f"{head} {note}")
    if weights.mean is not None and weights.std is not None:
        network.normalise(weights.mean, weights.std)
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (weights.mean, weights.std))
        notes.append(f"pixels normalised with mean {mean} and std {std}")
    return ", ".join(notes)


def find_prefix(keys: Collection[str], backbone: Sequence[str], source: str) -> str:
    """What stands before the backbone's keys in `keys`; empty if nothing does, or if they are not there.

    DistributedDataParallel puts `module.` before the names, torch.compile `_orig_mod.`, Lightning that of an attribute.
    UserError if the backbone is there several times.
    """
    first = backbone[0]
    prefixes = sorted((key.removesuffix(first) for key in keys if f".{key}".endswith(f".{first}")), key=len)
    whole = [prefix for prefix in prefixes if all(f"{prefix}{key}" in keys for key in backbone)]
    if len(whole) > 1 and whole[0]:
        raise UserError(f"{source} holds several networks, {', '.join(whole)}: save the weights of one of them alone")
    return (whole or prefixes or [""])[0]


def same_shape(key: str, own: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor]) -> bool:
    return key in own and key in loaded and own[key].shape == loaded[key].shape


def check_backbone(
    network: Network,
    config: ModelConfig,
    own: Mapping[str, torch.Tensor],
    loaded: Mapping[str, torch.Tensor],
    model: str,
) -> None:
    """Raises UserError with the first difference unless the loaded backbone has the network's keys and shapes.

    `model` is the architecture that was loaded, if that is known.
    """
    for key in (*own, *(key for key in loaded if key not in own)):
        if network.in_head(key) or same_shape(key, own, loaded):
            continue
        here, there = (str(tuple(state[key].shape)) if key in state else "missing" for state in (own, loaded))
        trained_with = f"--model {model}" if model not in ("", config.model) else "the --model, --stem and --width"
        raise UserError(
            f"{config.pretrained} does not fit {config.model}: {key} is {there} there and {here} here; "
            f"give {trained_with} that it was trained with, or other weights"
        )


def head_note(
    head: str, own: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor], kept: Sequence[str]
) -> str:
    """Whether a head was loaded, in words; empty if neither the network nor the weights have it."""
    here, there = (
        next((len(state[key]) for key in state if re.fullmatch(rf"{re.escape(head)}(\.head)*\.bias", key)), 0)
        for state in (own, loaded)
    )
    if not here:
        return "ignored, as it is not a task" if there else ""
    if not there:
        return "new"
    if any(key.startswith(f"{head}.") for key in kept):
        return (
            f"new, as it has {plural(there, 'output')} there and {here} here"
            if there != here
            else "new, as its layers differ"
        )
    return "loaded too"


def find(config: ModelConfig) -> Weights:
    """The weights that `config.pretrained` names, downloaded if they are not cached."""
    source = config.pretrained
    if source.startswith(TORCHVISION):
        from torchvision.models import get_model_weights

        known = get_model_weights(config.model).__members__
        name = source.removeprefix(TORCHVISION)
        if name not in known:
            raise unknown(f"torchvision weights of {config.model}", name, list(known))
        transform = known[name].transforms()
        state = read_weights(download(known[name].url, check_hash=True)).state
        return Weights(state, transform.mean, transform.std)
    if source.startswith(WEB):
        return read_weights(download(source, check_hash=False))
    config.check_pretrained()
    return read_weights(checkpoint_file(Path(source)))


def download(url: str, check_hash: bool) -> Path:
    """The file of a URL in torch.hub's cache (TORCH_HOME), which torchvision and timm also use."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.parts[0] == "~":
        raise UserError(f"cannot download {url}: HOME is not set: set TORCH_HOME to a directory for it")
    if path.exists():
        return path
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name) if check_hash else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot download {url} to {path.parent} ({error.strerror}): set TORCH_HOME to a directory that can be "
            "written"
        ) from None
    if not os.access(path.parent, os.W_OK):
        raise UserError(
            f"cannot download {url} to {path.parent}, which cannot be written: set TORCH_HOME to a directory that can"
        )
    try:
        torch.hub.download_url_to_file(url, str(path), digest.group(1) if digest else None, progress=False)
    except (OSError, RuntimeError, ValueError) as error:  # no network, a wrong hash, no URL
        if isinstance(error, HTTPError):
            error.close()
        raise UserError(
            f"cannot download {url} ({one_line(error)}): on a machine with network access, download it to {path}"
        ) from None
    try:
        weights_format(path)
    except UserError as error:  # a page or a pointer: not to be found here the next time
        path.unlink()
        raise UserError(str(error).replace(str(path), url, 1)) from None
    return path
