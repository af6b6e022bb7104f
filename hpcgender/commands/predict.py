"""`hpcgender predict`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpcgender.checkpoint_file import check_checkpoint, checkpoint_file, newest_checkpoint
from hpcgender.commands.export import SUFFIXES
from hpcgender.data.config import BACKEND, Backend
from hpcgender.evaluate.decision import DecisionConfig
from hpcgender.inference.config import WantedPrecision
from hpcgender.models.registry import check_model
from shard_tools.base.commands import RUNS, Command, default_is
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory, check_file

WantedCrop = Literal["run", "none"]
"""What is done to images: `run` is what was done to the images that the run was trained on."""

ONNX = SUFFIXES["onnx"]


def check_model_file(path: Path, precision: WantedPrecision) -> None:
    """Raises UserError unless there is such a checkpoint or exported file, which computes in fp32 alone."""
    if path.suffix != ONNX:
        check_checkpoint(path)
        return
    if not path.is_file():
        raise UserError(f"no file {path}: give one of hpcgender export --format onnx, or a checkpoint")
    if precision not in ("run", "fp32"):
        raise UserError(f"--precision {precision} is for checkpoints: an exported model computes in fp32")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(DecisionConfig):
    """Predicts the class of each image, and its probability.

    Images that cannot be used, such as those without a face, are listed at the end with the reason; the exit code is
    then 1, or 2 if none can be used.
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH|DIR|GLOB|-")]
    """Images as JPEG, PNG, WebP or BMP: files, directories with all images below them, patterns in quotes such as
    'web/**/*.jpg'; -: names of files from stdin, or an image."""
    checkpoint: Annotated[Path | None, default_is("see --model", "FILE|RUN")] = None
    """Checkpoint, e.g. runs/train/checkpoints/best.pt, or a run, by its directory or its name, for its best one; or a
    file of export --format onnx."""
    model: Annotated[str, default_is("see --checkpoint", "NAME")] = ""
    """Instead of a checkpoint: the newest best one of a run of this architecture in runs, e.g. resnet50."""
    crop: WantedCrop = "run"
    """run: the face is cropped out of each image as it was out of the run's training images, if the checkpoint knows
    how, but for files that `shard-tools align` made; none: the images are such crops already."""
    backend: Backend = BACKEND
    """Image decoder: dali (NVIDIA DALI), dali-mixed (DALI, decoding on the GPU), or torchvision (Pillow), the default
    where DALI is not installed."""
    precision: WantedPrecision = "run"
    """Precision of the forward pass: run (that of the run's validation on such a device), fp32, tf32, bf16 or
    fp16."""
    batch_size: int = 64
    """Images per batch."""
    json: bool = False
    """Print a JSON list instead of lines; an image that cannot be used has the field `error`."""
    csv: Path | None = None
    """CSV file to write, instead of lines: a row per image."""
    parquet: Path | None = None
    """Parquet file to write, instead of lines: the same."""
    cam: Annotated[Path | None, default_is("none", "DIR")] = None
    """Directory for the images as JPEG with their heat maps overlaid, each on its own colour scale."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.images:
            raise UserError("no image given: hpcgender predict --checkpoint FILE IMAGE...")
        if bool(self.checkpoint) == bool(self.model):
            raise UserError("give either --checkpoint or, for the newest run of an architecture, --model")
        if self.model:
            check_model(self.model)
        path = self.checkpoint_path
        check_model_file(path, self.precision)
        self.check_threshold()
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size} must be positive")
        for file, suffix in ((self.csv, ".csv"), (self.parquet, ".parquet")):
            if file:
                check_file(file, suffix)
        if self.cam:
            if path.suffix == ONNX:
                raise UserError(f"--cam needs a checkpoint: {path} was exported, and has no heat maps")
            check_directory(self.cam, "--cam")

    @cached_property  # a training may write a newer one meanwhile
    def checkpoint_path(self) -> Path:
        """The file of the checkpoint; UserError if no run has the model that is asked for."""
        return checkpoint_file(self.checkpoint) if self.checkpoint else newest_checkpoint(RUNS, self.model)


COMMANDS = (
    Command(
        name="predict",
        summary="classify images with a checkpoint",
        options=PredictConfig,
        work="hpcgender.predict.command:predict",
    ),
)
