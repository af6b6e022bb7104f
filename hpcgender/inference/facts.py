"""What results of evaluate and cam note of their origin: which checkpoint, which images, and how they were computed.

Results of one origin are never replaced by those of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shard_tools.base.errors import UserError
from shard_tools.base.parsing import load_json

WORK = "work"
"""Directory of the states of passes, within that of their results."""
LOCK = "lock"
"""Held in that by the command that writes there."""
REMEDY = "give another --out, or remove it"

Origin = Mapping[str, Any]
"""What decides results, by the names that an error calls it: those of options begin with --."""


def note_path(work: Path, name: str) -> Path:
    """The file with the origin of a pass, JSON."""
    return work / f"{name}.json"


def read_note(path: Path) -> dict[str, Any] | None:
    """The origin of a pass; None if it has not begun, and empty, which is like no other, if it cannot be read."""
    if not path.exists():
        return None
    try:
        content = load_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_origin(held: Origin, mine: Origin, out: Path, what: str) -> None:
    """Raises UserError, which names what differs, if `out` holds `what` of another origin than `mine`."""
    different = [name for name in mine if held.get(name) != mine[name]]
    if not different:
        return
    others = [name for name in different if not name.startswith("--")]
    words = [f"of another {' and '.join(others)}"] if others else []
    words += [as_given(name, held.get(name, "unknown")) for name in different if name not in others]
    raise UserError(f"{out} holds {what} {', '.join(words)}: {REMEDY}")


def as_given(option: str, value: object) -> str:
    """An option with its value, as an error names it."""
    return f"{'with' if value else 'without'} {option}" if isinstance(value, bool) else f"with {option} {value}"


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """The model."""

    path: str
    """Absolute."""
    digest: str
    """Checksum of its content, which identifies it wherever the file lies."""
    model: str
    image_size: int
    """Height and width of its input, pixels."""
    tasks: tuple[str, ...]
    """gender, age, or both."""
    epoch: int
    step: int
    revision: str
    """Git revision of the code that trained it, with + if the code was changed since; empty if not known."""
    manifest: str
    """SHA-256 of the manifest of its training data, of a mixture as HASH=2,HASH=1; empty if not known."""
    options: dict[str, Any]
    """Resolved configuration of its training."""
    val_manifest: str
    """The same of --val-data, on which it was validated; empty if that was on its training data."""
    leaks: tuple[str, ...]
    """What the data sets of a mixture share across splits, if it was trained with --allow-leaks: a line each."""


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """The images."""

    path: str
    """Absolute."""
    source: str
    """What was packed, e.g. morph."""
    manifest: str
    """SHA-256 of its manifest.json."""
    split: str
    images: int
    left_out: int
    """Images that do not decode. They have no prediction and no map, and count nowhere else."""
    classes: tuple[str, ...]
    """Names of labels 0 and 1: female, male."""


@dataclass(frozen=True, kw_only=True)
class ComputeFacts:
    """What differs from one computation of the same results to the next."""

    began: str
    """UTC, as 2025-01-31T12:00:00Z."""
    seconds: float
    """From the first image to the last, those of --temperature-from too; after a resume, of the last start."""
    images_per_s: float
    world_size: int
    device: str
    """cpu, or the GPU's name."""
    threads: int
    """PyTorch's threads in each process, without a GPU."""
    versions: dict[str, str]
    """Of hpcgender, torch and numpy."""
    revision: str
    """Git revision of the code; empty if not known."""
    job: str
    """Slurm's or Grid Engine's job id; empty outside of a job."""
