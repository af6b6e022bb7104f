"""What results of evaluate and cam note of their origin: which checkpoint, which images, and how they were computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
    """SHA-256 of the manifest of its training data; empty if not known."""
    options: dict[str, Any]
    """Resolved configuration of its training."""


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
