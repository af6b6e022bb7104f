"""What a user may set of the data path: what decides every batch, and how its images are read and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shard_tools.base.errors import UserError

Backend = Literal["dali", "torchvision"]
Sampling = Literal["none", "undersample", "oversample", "weights"]


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Where images come from, and who decodes them. Changes nothing about which images are in a batch."""

    data: Path = Path("data/shards")
    """Packed data set: the directory of its manifest.json."""
    workers: int = 1
    """Threads that decode images, per process."""
    backend: Backend = "dali"
    """What decodes and varies images: NVIDIA DALI, or on machines without it Pillow, as torchvision does."""
    stage_to: Path | None = None
    """Directory on this node's own disk: shards are copied there first, and removed at the end."""
    max_bad: float = 0.001
    """Largest part of the images that may fail to decode; above it the run stops."""

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        if self.workers < 1:
            raise UserError(f"--workers {self.workers} must be positive")
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"--max-bad {self.max_bad} must be a part of 1")


@dataclass(frozen=True, kw_only=True)
class BatchConfig(ReadConfig):
    """What decides every training batch, whatever the number of processes."""

    batch_size: int = 256
    """Images in a batch, all processes together."""
    image_size: int = 112
    """Height and width of the network's input, pixels."""
    augment: str = "light"
    """How images are varied: none, light, moderate, strong, degraded, or a TOML file of your own."""
    sampling: Sampling = "none"
    """Each image once an epoch, or the classes balanced by fewer of the larger, by repeating the smaller, by weight."""
    class_weights: tuple[float, ...] = ()
    """For --sampling weights, a number for each class: how often its images are drawn, relative to the others."""
    last_batch: Literal["drop", "pad"] = "drop"
    """What is too few for a last batch: left out of the epoch, or filled up with the epoch's first images."""
    window_mb: int = 256
    """Shards that are held in memory to mix images, all processes together, MB: more makes reads larger."""
    seed: int = 0
    """Draws the weights, the order and the variation of images."""

    def check(self) -> None:
        super().check()
        for field in ("batch_size", "image_size", "window_mb"):
            if getattr(self, field) <= 0:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must be positive")
        if self.class_weights and self.sampling != "weights":
            raise UserError(f"--class-weights needs --sampling weights, not {self.sampling}")
