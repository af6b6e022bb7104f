"""`hpcgender predict`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.checkpoint_file import check_checkpoint, checkpoint_file
from hpcgender.data.config import BACKEND, Backend
from hpcgender.inference.config import NumberFormat
from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predicts the class of each image file, and its probability.

    An image that cannot be used is named on stderr, with the reason; the exit code is 2 only if none can be used."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files: JPEG, PNG, WebP or BMP, cropped to the face as the training images are."""
    checkpoint: Path
    """Checkpoint, e.g. runs/train/checkpoints/best.pt, or a run, e.g. runs/train, for its best one."""
    backend: Backend = BACKEND
    """Image decoder: dali (NVIDIA DALI), dali-mixed (DALI, decoding on the GPU), or torchvision (Pillow), the default
    where DALI is not installed."""
    precision: NumberFormat = "run"
    """Number format of the forward pass: run (that of the run's validation on such a device), fp32, tf32, bf16 or
    fp16."""
    json: bool = False
    """Print a JSON list instead of lines; an image that cannot be used has the field `error`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", checkpoint_file(self.checkpoint))

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.images:
            raise UserError("no image given: hpcgender predict --checkpoint FILE IMAGE...")
        check_checkpoint(self.checkpoint)


COMMANDS = (
    Command(
        name="predict",
        summary="classify image files with a checkpoint",
        options=PredictConfig,
        work="hpcgender.predict:predict",
    ),
)
