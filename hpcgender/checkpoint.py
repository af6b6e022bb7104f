"""Checkpoints: written whole or not at all, read without running code from them, and checked for what they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from xxhash import xxh3_128

from hpcgender.models.config import ModelConfig, read_model_config
from hpcgender.models.create import create
from hpcgender.models.network import Network
from shard_tools.base.errors import UserError, one_line
from shard_tools.manifest import CLASSES

FORMAT = "hpcgender-checkpoint-2"
_MARK = f"\n{FORMAT} xxh3-128 ".encode()
_TRAILER_BYTES = len(_MARK) + 33
_READ_BYTES = 1 << 22


class UnreadableError(Exception):
    """A file is no whole checkpoint. Its text says in what way, after the file's name: `is cut short, ...`."""


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


class _Hashed:
    """A binary file for torch.save, with a checksum of all that was written to it, and the error that ended that."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.checksum = xxh3_128()
        self.flush = file.flush
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.checksum.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes beside `path`, then renames: `path` is the old checkpoint or the new one, never a part of it.

    The file is torch.save's and can be read by any torch.load; behind it stands one line with the XXH3 checksum of all
    before it, for torch.load takes changed bytes of a tensor as they are. UserError if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            hashed = _Hashed(file)
            try:
                torch.save({"format": FORMAT, **content}, hashed)  # type: ignore[arg-type]  # it calls these two alone
            except RuntimeError as error:  # what torch makes of it: that a position is not the expected one
                raise hashed.error or error from None
            file.write(_MARK + hashed.checksum.hexdigest().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror}; free space or mend permissions, and go on with --resume"
        ) from None


def read_verified(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; UnreadableError unless every byte is as it was written."""
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - _TRAILER_BYTES
            checksum = xxh3_128()
            while left > 0 and (block := file.read(min(left, _READ_BYTES))):
                checksum.update(block)
                left -= len(block)
            mark, _, digest = file.read().rpartition(b" ")
            if mark + b" " != _MARK:
                raise UnreadableError("is cut short, or no checkpoint of hpcgender")
            if digest != checksum.hexdigest().encode() + b"\n":
                raise UnreadableError("is damaged: its bytes do not match their checksum")
            file.seek(0)
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return content
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or one_line(error)}") from None
    except (RuntimeError, UnpicklingError) as error:  # what another torch wrote, or another program that knows the mark
        raise UnreadableError(f"cannot be read: {one_line(error)[:200]}") from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; UserError if it is missing, damaged or another program's."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: give one as --checkpoint, such as runs/<name>/checkpoints/best.pt")
    try:
        return read_verified(path)
    except UnreadableError as error:
        raise UserError(f"{path} {error}; use another checkpoint of the run") from None


@dataclass(frozen=True)
class Trained:
    """A trained model, ready for evaluation, and what must be known to use it."""

    model: Network
    config: ModelConfig
    name: str
    image_size: int
    classes: tuple[str, ...]
    epoch: int
    about: dict[str, Any]
    """All that the checkpoint holds besides weights: its step, the run's configuration, revision and manifest."""


def load_trained(path: Path, device: torch.device, classes: Sequence[str] = CLASSES) -> Trained:
    """The model of a checkpoint in eval mode on `device`; UserError if its classes are not `classes` in that order."""
    content = read_checkpoint(path)
    if tuple(content["classes"]) != tuple(classes):
        raise UserError(f"{path} was trained for classes {', '.join(content['classes'])}, not {', '.join(classes)}")
    config = content["config"]
    options = read_model_config(config)
    model = create(options, len(classes))
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {config['model']}: {one_line(error)[:200]}") from None
    model = model.to(device).to(memory_format=torch.channels_last)
    about = {name: value for name, value in content.items() if name not in ("model", "learner", "tally", "norms")}
    return Trained(
        model.eval(), options, config["model"], config["image_size"], tuple(classes), content["epoch"], about
    )


def digest(path: Path) -> str:
    """The checksum that stands behind a checkpoint, which tells it from others."""
    with path.open("rb") as file:
        file.seek(-_TRAILER_BYTES, os.SEEK_END)
        return file.read().rpartition(b" ")[2].strip().decode()
