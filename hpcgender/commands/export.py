"""`hpcgender export`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hpcgender.checkpoint_file import check_checkpoint, checkpoint_file
from hpcgender.evaluate.decision import DecisionConfig
from shard_tools.base.commands import Command, default_is
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory, check_file
from shard_tools.manifest import read_manifest

SUFFIXES = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "safetensors": ".safetensors",
    "timm": ".safetensors",
    "torchvision": ".pth",
}
"""Of the file of each format."""
EXPORTS = "exports"
"""Directory of exported models within a run directory."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(DecisionConfig):
    """Writes a trained model as a file for other programs.

    onnx and torch (an archive of torch.export) take RGB images of any size, and hold resizing, normalisation,
    temperature and both tasks; safetensors, timm and torchvision hold the weights. Before the file is there, its
    predictions are compared with the checkpoint's on images of the data set, at the network's size, and the largest
    difference is printed. Other sizes are resized by bilinear interpolation, which differs a little from predict's.
    """

    checkpoint: Path
    """Checkpoint, e.g. runs/train/checkpoints/best.pt, or a run, by its directory or its name, for its best one."""
    format: Literal["onnx", "torch", "safetensors", "timm", "torchvision"]
    """onnx (for onnxruntime and others), torch (for torch.export.load), safetensors (hpcgender's own names of weights),
    timm or torchvision (weights that their models of the same name load)."""
    data: Path = Path("data/shards")
    """Packed data set with the images to compare on."""
    split: str = "test"
    """Split of it."""
    images: int = 64
    """Images to compare on, spread over the split."""
    out: Annotated[Path | None, default_is("exports/RUN in the checkpoint's run", "FILE")] = None
    """File to write; an older one is replaced."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", checkpoint_file(self.checkpoint))

    @property
    def file(self) -> Path:
        """Where the model goes."""
        if self.out:
            return self.out
        run_dir = self.checkpoint.absolute().parent.parent
        tag = f".{self.format}" if self.format == "timm" else ""
        return self.checkpoint.parent.parent / EXPORTS / f"{run_dir.name}{tag}{SUFFIXES[self.format]}"

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        check_checkpoint(self.checkpoint)
        self.check_threshold()
        if not read_manifest(self.data).split(self.split).samples:
            raise UserError(f"{self.split} in {self.data} has no images to compare on: give another --split")
        if self.images < 1:
            raise UserError(f"--images {self.images} must be positive")
        if self.out:
            check_file(self.out, SUFFIXES[self.format])
        else:
            check_directory(self.file.parent, "--out, with a file's name")


COMMANDS = (
    Command(
        name="export",
        summary="write a model for onnxruntime, torch.export, timm or torchvision",
        options=ExportConfig,
        work="hpcgender.export.export:export",
    ),
)
