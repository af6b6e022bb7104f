"""Checkpoints: written atomically with a checksum, loaded with weights_only=True."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch
from xxhash import xxh3_128

from hpcgender.checkpoint_file import FORMAT, MARK, check_checkpoint, read_ending
from hpcgender.memory import enough_memory, of_the_machine, out_of_memory
from hpcgender.models.config import ModelConfig, read_model_config
from hpcgender.models.create import create, on_meta
from hpcgender.models.network import Network
from hpcgender.models.weights_file import larger_than
from hpcgender.run_directory import resume_command
from shard_tools.align.recipe import Recipe
from shard_tools.base.documents import restored_part
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_file
from shard_tools.base.storage import retried, unwritable
from shard_tools.base.text import byte_size
from shard_tools.manifest import CLASSES

_READ_BYTES = 1 << 22


class UnreadableError(Exception):
    """A file is not an intact checkpoint. Its text continues the file's name: `is cut short, ...`."""


@cache
def git_revision() -> str:
    """The commit of this code, with + if there are uncommitted changes; empty outside a git checkout.

    As it is when first asked for, as this process runs no later one; no checkpoint after the first waits for git.
    """
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            cwd=Path(__file__).parent,
            # Not a checkout that an installation lies in.
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


class _Hashed:
    """A binary file for torch.save that keeps a checksum of what is written, and the OSError of a failed write."""

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
    """Writes a temporary file, syncs it and renames it to `path`, which is the old checkpoint or the new one.

    Any torch.load can read the file. A last line holds the XXH3 checksum of all bytes before it, as torch.load does not
    notice changed bytes of a tensor. UserError if it cannot be written, with the command that resumes the run whose
    directory of checkpoints it is in.
    """
    try:
        with whole_file(path) as file:
            hashed = _Hashed(file)
            try:
                torch.save({"format": FORMAT, **content}, hashed)  # type: ignore[arg-type]  # torch.save calls only write and flush
            except RuntimeError as error:  # torch replaces the OSError by one about an unexpected position
                raise hashed.error or error from None
            file.write(MARK + hashed.checksum.hexdigest().encode() + b"\n")
    except OSError as error:
        again = resume_command(path.parent.parent)
        raise unwritable(error, path, f"free space or correct permissions, then resume: {again}") from None


def read_verified(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; UnreadableError unless its checksum is correct.

    Raises StorageError where its storage fails: it may be intact.
    """

    def read() -> dict[str, Any]:
        with path.open("rb") as file:
            ending = read_ending(file)
            if ending is None:
                raise UnreadableError("is cut short, or not a checkpoint of hpcgender")
            file.seek(0)
            left = ending.length
            checksum = xxh3_128()
            while left > 0 and (block := file.read(min(left, _READ_BYTES))):
                checksum.update(block)
                left -= len(block)
            if ending.checksum != checksum.hexdigest():
                raise UnreadableError("is damaged: its bytes do not match their checksum")
            content = _load(file, ending.length)
            if not isinstance(content, dict):
                raise UnreadableError("is damaged: it holds no checkpoint")
            return content

    try:
        return retried(read, path)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or one_line(error)}") from None


def _load(file: BinaryIO, length: int) -> Any:
    """What torch.save wrote in the first `length` bytes; UnreadableError if that cannot be read, or is compressed."""
    try:
        with ZipFile(file) as archive:
            larger = larger_than(archive.infolist(), length)
        if not larger:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises key, index, type, unicode and many other errors
        if out_of_memory(error):
            raise
        raise UnreadableError(
            f"cannot be read: it holds more than tensors, numbers and text, or is of a torch after {torch.__version__}"
        ) from None
    raise UnreadableError("cannot be read: its records are larger than the file")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; UserError if it is missing, damaged or of another program, or
    takes more memory than there is."""
    check_checkpoint(path)
    try:
        with enough_memory(f"{path} does not fit: use a machine with more"):
            return read_verified(path)
    except UnreadableError as error:
        raise UserError(f"{path} {error}; use another checkpoint of the run") from None


MOVE_AWAY = "move it away, and the run resumes from the one before"


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Makes a UserError of what loading states raises where those of an intact checkpoint are not the run's.

    What the machine's memory, GPUs and network raise is left: the checkpoint is good.
    """
    try:
        yield
    except (KeyError, ValueError, RuntimeError) as error:
        if of_the_machine(error):
            raise
        raise UserError(f"{path} holds another state than the run has ({one_line(error)[:200]}): {MOVE_AWAY}") from None


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What every checkpoint has: a model's weights, and how they came to be."""

    model: dict[str, Any]
    classes: tuple[str, ...]
    config: dict[str, Any]
    """The options that the run was begun with."""
    epoch: int
    """Finished epochs."""
    step: int
    revision: str
    manifest: str
    """What identifies the data, see `hpcgender.data.packs.identity`."""
    val_manifest: str
    """The same of --val-data; empty without."""
    leaks: tuple[str, ...]
    """What the data sets share across splits."""
    crop: Recipe | None


@dataclass(frozen=True, kw_only=True)
class RunState(_Parts):
    """What a run resumes from."""

    number: int
    """Finished steps of the epoch after the finished ones."""
    seconds: float
    """Spent on these steps."""
    best: float | None
    """The best `selection_score` so far."""
    learner: dict[str, Any]
    tally: dict[str, Any]
    norms: dict[str, Any]


def run_state(content: Mapping[str, Any], path: Path) -> RunState:
    """The state in the content of a checkpoint; UserError if a part of it is missing, or of another type."""
    return restored_part(RunState, content, path, MOVE_AWAY)


@dataclass(frozen=True, kw_only=True)
class _Input:
    """The option of a run that is none of its model's, and belongs to it."""

    image_size: int


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode, and its options and metadata."""

    model: Network
    config: ModelConfig
    name: str
    image_size: int
    classes: tuple[str, ...]
    epoch: int
    crop: Recipe | None
    """How the images that it was trained on were cropped; None if they were not, or if that is not known."""
    about: dict[str, Any]
    """The checkpoint's metadata: step, the run's options, git revision and the manifest's SHA-256."""


def memory_format(model: str, device: torch.device) -> torch.memory_format:
    """The memory format of weights that is faster in inference; convolutions bring images into it.

    Measured (tests/benchmarks/predict.py): on Intel's CPUs with AVX-512 the 3x3 convolutions of ResNets 18 and 34 are
    faster without channels_last; with AVX2 alone channels_last is faster there, too. AMD's with AVX-512 would be 5 to
    15 % faster with it, but PyTorch does not tell one from the other.
    """
    basic = model.endswith(("resnet18", "resnet34"))
    plain = basic and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.contiguous_format if plain else torch.channels_last


def load_trained(path: Path, device: torch.device, classes: Sequence[str] = CLASSES) -> Trained:
    """The model of a checkpoint in eval mode on `device`; UserError if its classes are not `classes` in that order."""
    content = read_checkpoint(path)
    again = "use another checkpoint of the run"
    parts = restored_part(_Parts, content, path, again)
    if parts.classes != tuple(classes):
        raise UserError(f"{path} was trained for classes {', '.join(parts.classes)}, not {', '.join(classes)}")
    options = read_model_config(parts.config, path, "use a checkpoint of this version")
    image_size = restored_part(_Input, parts.config, path, again).image_size
    options.check_image_size(image_size)
    try:
        needed = sum(value.nbytes for value in on_meta(options, len(classes), image_size).state_dict().values())
        if needed > path.stat().st_size:  # before so much memory is taken
            raise TypeError(f"its weights take {byte_size(needed)}, more than the file")
        model = create(options, len(classes), image_size)
        model.load_state_dict(parts.model)
    except (RuntimeError, TypeError, AttributeError, OverflowError) as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{path} does not fit {options.model}: {one_line(error)[:200]}") from None
    model = model.to(device).to(memory_format=memory_format(options.model, device))
    about = {name: value for name, value in content.items() if name not in ("model", "learner", "tally", "norms")}
    return Trained(
        model.eval(),
        options,
        options.model,
        image_size,
        parts.classes,
        parts.epoch,
        parts.crop,
        about,
    )
