"""Options of every command that measures a checkpoint on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from hpcgender.checkpoint_file import check_checkpoint, checkpoint_file, digest
from hpcgender.data.config import ReadConfig
from hpcgender.inference.facts import WORK, check_origin, note_path, read_note
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory
from shard_tools.manifest import read_manifest

WantedPrecision = Literal["run", "fp32", "tf32", "bf16", "fp16"]
"""Precisions of a trained network's forward pass; `run` is that of the run's validation on such a device."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig(ReadConfig):
    """A checkpoint, a split, and the directory of the results."""

    results: ClassVar[str]
    """Directory of such results within a run directory."""
    kept: ClassVar[str]
    """What its passes keep of each image, for errors."""

    checkpoint: Path
    """Checkpoint, e.g. runs/train/checkpoints/best.pt, or a run, by its directory or its name, for its best one."""
    split: str = "test"
    """Split: train, val or test."""
    out: Annotated[
        Path | None,
        default_is("DATA-SPLIT in evaluations or cams of the checkpoint's run", "DIR"),
    ] = None
    """Directory to write. It is refused if it holds results of another checkpoint, data set, split or options."""
    batch_size: int = 64
    """Images per batch and process; another size changes the results by rounding."""
    precision: WantedPrecision = "run"
    """Precision of the forward pass: run (that of the run's validation on such a device), fp32, tf32 (fp32 with
    TF32 in convolutions and matrix products), bf16 or fp16; another one changes the results by rounding."""
    stop_after: float = 0.0
    """Minutes after which to save what is done and exit with code 99, to be resumed; 0: never."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", checkpoint_file(self.checkpoint))

    @property
    def out_dir(self) -> Path:
        """Where the results go."""
        run_dir = self.checkpoint.parent.parent
        return self.out or run_dir / self.results / f"{self.data.resolve().name}-{self.split}"

    def check_given(self) -> None:
        """Raises UserError for options that cannot work, whatever the checkpoint, which need not be there yet."""
        super().check()
        read_manifest(self.data).split(self.split)
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size} must be positive")
        if self.stop_after < 0:
            raise UserError(f"--stop-after {self.stop_after} must be at least 0")

    def check(self) -> None:
        self.check_given()
        check_checkpoint(self.checkpoint)
        check_directory(self.out_dir)
        for name, split in self.passes.items():
            held = read_note(note_path(self.out_dir / WORK, name))
            if held is not None:
                check_origin(held, self.origin(split), self.out_dir, self.kept)

    @property
    def passes(self) -> dict[str, str]:
        """The split of each pass whose results must not be of another origin, by the pass's name."""
        raise NotImplementedError

    def origin(self, split: str) -> dict[str, Any]:
        """What decides the result of each image of a split, by the names that an error calls it."""
        return {
            "checkpoint": digest(self.checkpoint),
            "data set": read_manifest(self.data).sha256,
            "split": split,
            "--batch-size": self.batch_size,
            "--backend": self.backend,
            **({} if self.precision == "run" else {"--precision": self.precision}),  # not known without the device
        }
