"""`hpcgender predict`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.data.config import Backend
from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predicts the class of each image file, and its probability."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files: JPEG, PNG, WebP or BMP, cropped to the face as the training images are."""
    checkpoint: Path
    """Checkpoint, e.g. runs/train/checkpoints/best.pt."""
    backend: Backend = "dali"
    """Image decoder: dali (NVIDIA DALI), or torchvision (Pillow) on machines without DALI."""
    json: bool = False
    """Print a JSON list instead of lines."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.images:
            raise UserError("no image given: hpcgender predict --checkpoint FILE IMAGE...")
        for path in self.images:
            if not path.is_file():
                raise UserError(f"no image file {path}")


COMMANDS = (
    Command(
        name="predict",
        summary="classify image files with a checkpoint",
        options=PredictConfig,
        work="hpcgender.predict:predict",
    ),
)
