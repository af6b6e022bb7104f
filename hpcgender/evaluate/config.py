"""What a user may set of an evaluation, and of all that measures a checkpoint on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcgender.data.config import ReadConfig
from shard_tools.commands import UserError
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class SplitConfig(ReadConfig):
    """A checkpoint, a split, and where the results go."""

    results: ClassVar[str]
    """Directory of such results in a run."""

    checkpoint: Path
    """The model: a file such as runs/train/checkpoints/best.pt."""
    split: str = "test"
    """Which split: train, val or test."""
    out: Path | None = None
    """Directory to write; by default DATA-SPLIT among the results in the checkpoint's run."""
    batch_size: int = 64
    """Images in a batch, per process."""

    @property
    def out_dir(self) -> Path:
        """Where the results go."""
        run_dir = self.checkpoint.parent.parent
        return self.out or run_dir / self.results / f"{self.data.resolve().name}-{self.split}"

    def check(self) -> None:
        super().check()
        if not self.checkpoint.is_file():
            raise UserError(
                f"no checkpoint {self.checkpoint}: give one as --checkpoint, such as runs/<name>/checkpoints/best.pt"
            )
        read_manifest(self.data).split(self.split)
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size} must be positive")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SplitConfig):
    """Measures a checkpoint on a split, every image once. Under torchrun, the processes share the images."""

    results: ClassVar[str] = "evaluations"
