"""What a user may set of heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcgender.evaluate.config import check_inputs
from shard_tools.commands import UserError


@dataclass(frozen=True, kw_only=True)
class CamConfig:
    """Computes the heat map of every image of a split, and averages. Under torchrun, the processes share the images."""

    checkpoint: Path
    """The model: a file such as runs/train/checkpoints/best.pt."""
    data: Path = Path("data/shards")
    """Packed data set: the directory of its manifest.json."""
    split: str = "test"
    """Which split: train, val or test."""
    out: Path | None = None
    """Directory to write; by default cams/DATA-SPLIT in the checkpoint's run."""
    examples: int = 6
    """Single images of each class on the sheet."""
    batch_size: int = 64
    """Images in a batch, per process."""
    workers: int = 1
    """Threads that decode images, per process."""

    @property
    def out_dir(self) -> Path:
        """Where the results go."""
        if self.out:
            return self.out
        return self.checkpoint.parent.parent / "cams" / f"{self.data.resolve().name}-{self.split}"

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        check_inputs(self.checkpoint, self.data, self.split)
        if self.batch_size < 1 or self.workers < 1 or self.examples < 1:
            raise UserError("--batch-size, --workers and --examples must be positive")
