"""The options of the data path: what determines every batch, and how images are read and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError

Backend = Literal["dali", "dali-mixed", "torchvision"]
Sampling = Literal["none", "undersample", "oversample", "weights"]


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed, which is not to say that it can be imported."""
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # there is nothing of NVIDIA's
        return False


BACKEND: Backend = "dali" if has_dali() else "torchvision"
"""The backend where none is given."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Where images are read from and how they are decoded; which images are in a batch does not depend on it."""

    data: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data/shards")
    """Packed data set: a directory with manifest.json, made by shard-tools pack. Training also takes several with
    weights: --data a=2 --data b=1."""
    workers: Annotated[int | None, default_is("1 on a CPU, the cores of the rank on a GPU", "N")] = None
    """Decoder threads per rank."""
    backend: Backend = BACKEND
    """Decoder and augmentation: dali (NVIDIA DALI; images are decoded on the CPU, all else is computed on the GPU where
    there is one), dali-mixed (decoded by the GPU, too: other pixels than on a CPU, and damaged images may pass), or
    torchvision (Pillow and torch, the default where DALI is not installed; its pixels differ from DALI's by a few gray
    levels at most)."""
    stage_to: Annotated[Path | None, default_is("shards are read from --data", "DIR")] = None
    """Directory on the node's local disk, e.g. /scratch/$USER: shards are copied there first and removed at the end."""
    max_bad: float = 0.001
    """Maximum fraction of images that fail to decode, from 0 to 1; more end the run with an error."""

    def check(self) -> None:
        """Raises UserError for values out of range."""
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers} must be positive")
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"--max-bad {self.max_bad} must be a fraction, from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class BatchConfig(ReadConfig):
    """What determines every training batch, for any number of ranks."""

    batch_size: int = 256
    """Global batch size: images per step over all ranks."""
    image_size: int = 112
    """Height and width of the network's input in pixels."""
    augment: Annotated[str, tyro.conf.arg(metavar="PRESET|FILE")] = "light"
    """Augmentation: none, light, moderate, strong, degraded (blur and strong colour jitter), or a TOML file with
    probabilities and ranges."""
    sampling: Sampling = "none"
    """Class balance of an epoch: none (each image once), undersample the larger class, oversample the smaller one, or
    weights (see --sampling-weights)."""
    sampling_weights: Annotated[tuple[float, ...], default_is("none", "FEMALE MALE")] = ()
    """For --sampling weights: relative frequency with which an image of each class is drawn, e.g. 1 2."""
    limit: int = 0
    """Train on a sample of at most so many images, of whole subjects, e.g. 5000. 0: on all."""
    limit_seed: int = 0
    """Random seed of that sample, which --seed does not change: runs of several seeds train on the same images."""
    last_batch: Literal["drop", "pad"] = "drop"
    """Incomplete last batch of an epoch: drop it, or pad it with the epoch's first images."""
    window_mb: int = 256
    """Size of the shuffle buffer in MB, over all ranks. A larger one is read in larger blocks."""
    seed: int = 0
    """Random seed of initial weights, order of images, augmentation, mixup and dropout."""

    def check(self) -> None:
        ReadConfig.check(self)
        for field in ("batch_size", "image_size", "window_mb"):
            if getattr(self, field) <= 0:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must be positive")
        for field in ("limit", "limit_seed"):
            if getattr(self, field) < 0:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must not be negative")
        if self.sampling_weights and self.sampling != "weights":
            raise UserError(f"--sampling-weights needs --sampling weights, not {self.sampling}")
