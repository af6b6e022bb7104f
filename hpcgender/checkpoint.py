"""Checkpoints: written whole or not at all, read without running code from them, and checked for what they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpcgender.models.registry import create
from hpcgender.models.resnet import ResNet
from shard_tools.commands import UserError, one_line
from shard_tools.manifest import CLASSES

FORMAT = "hpcgender-checkpoint-1"


def git_revision() -> str:
    """The commit that this code is at, with + if it was changed since; empty outside a git checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes beside `path`, then renames: `path` is the old checkpoint or the new one, never a part of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {one_line(error)}; free space and go on with --resume") from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; UserError if it is missing, damaged or another program's."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: give one as --checkpoint, such as runs/<name>/checkpoints/best.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises zipfile, pickle, unicode and runtime errors
        raise UserError(f"cannot read {path}: {one_line(error)[:200]}; use another checkpoint") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no checkpoint of hpcgender: use one from runs/<name>/checkpoints")
    return content


@dataclass(frozen=True)
class Trained:
    """A trained model, ready for evaluation, and what must be known to use it."""

    model: ResNet
    name: str
    image_size: int
    classes: tuple[str, ...]
    epoch: int


def load_trained(path: Path, device: torch.device, classes: Sequence[str] = CLASSES) -> Trained:
    """The model of a checkpoint in eval mode on `device`; UserError if its classes are not `classes` in that order."""
    content = read_checkpoint(path)
    if tuple(content["classes"]) != tuple(classes):
        raise UserError(f"{path} was trained for classes {', '.join(content['classes'])}, not {', '.join(classes)}")
    config = content["config"]
    model = create(config["model"], len(classes), config["output_stride"])
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {config['model']}: {one_line(error)[:200]}") from None
    model = model.to(device).to(memory_format=torch.channels_last)
    return Trained(model.eval(), config["model"], config["image_size"], tuple(classes), content["epoch"])
