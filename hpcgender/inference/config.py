"""Options of every command that measures a checkpoint on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hpcgender.data.config import ReadConfig
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class SplitConfig(ReadConfig):
    """A checkpoint, a split, and the directory of the results."""

    results: ClassVar[str]
    """Directory of such results within a run directory."""

    checkpoint: Path
    """Checkpoint, e.g. runs/train/checkpoints/best.pt."""
    split: str = "test"
    """Split: train, val or test."""
    out: Annotated[
        Path | None,
        default_is("DATA-SPLIT in evaluations or cams of the checkpoint's run", "DIR"),
    ] = None
    """Directory to write."""
    batch_size: int = 64
    """Images per batch and process; another size changes the results by rounding."""
    stop_after: float = 0.0
    """Minutes after which to save what is done and exit with code 99, to be resumed; 0: never."""

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
        if self.stop_after < 0:
            raise UserError(f"--stop-after {self.stop_after} must be at least 0")
