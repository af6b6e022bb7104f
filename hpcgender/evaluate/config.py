"""What a user may set of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shard_tools.commands import UserError
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measures a checkpoint on a split, every image once. Under torchrun, the processes share the images."""

    checkpoint: Path
    """The model: a file such as runs/train/checkpoints/best.pt."""
    data: Path = Path("data/shards")
    """Packed data set: the directory of its manifest.json."""
    split: str = "test"
    """Which split: train, val or test."""
    out: Path | None = None
    """Directory for scores.json and predictions.csv; by default evaluations/DATA-SPLIT in the checkpoint's run."""
    batch_size: int = 64
    """Images in a batch, per process."""
    workers: int = 1
    """Threads that decode images, per process."""

    @property
    def out_dir(self) -> Path:
        """Where the results go."""
        if self.out:
            return self.out
        return self.checkpoint.parent.parent / "evaluations" / f"{self.data.resolve().name}-{self.split}"

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        check_inputs(self.checkpoint, self.data, self.split)
        if self.batch_size < 1 or self.workers < 1:
            raise UserError("--batch-size and --workers must be positive")


def check_inputs(checkpoint: Path, data: Path, split: str) -> None:
    """Raises UserError unless there is a checkpoint, and a packed data set with that split."""
    if not checkpoint.is_file():
        raise UserError(
            f"no checkpoint {checkpoint}: give one as --checkpoint, such as runs/<name>/checkpoints/best.pt"
        )
    read_manifest(data).split(split)
