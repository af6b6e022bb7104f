"""`shard-tools align`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shard_tools.align.recipe import CropOptions, recipe_of
from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory
from shard_tools.workers import part_of

UNFINISHED = ".aligning"
"""Directory in that of the results until all images are done."""


@dataclass(kw_only=True)
class AlignConfig(CropOptions):
    """Crops the face out of each image of a directory, turned and scaled to a template.

    The crops are in OUT/images, under the names of the images, to be packed from there: `shard-tools pack` and the
    checkpoints of a training then know how they were made. An image without a crop is in OUT/quarantine.csv with the
    reason. Killed or stopped, the same command resumes.
    """

    images: Path
    """Directory with the images; searched with its subdirectories and what links lead to, hidden ones aside."""
    out: Path
    """Directory to write: new, empty, or with the same work unfinished, which is resumed."""
    quality: int = 95
    """JPEG quality of the crops, 1 to 95. Those of PNG, WebP and BMP files are of their kind, without loss."""
    workers: int = 2
    """Processes that find and crop faces."""
    task: str = ""
    """K/N: do part K of N only, as a task of an array job. After all, the same command without --task ends the work."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        self.check_crop()
        part_of(self.task)
        if not 1 <= self.quality <= 95:
            raise UserError(f"--quality {self.quality} is not from 1 to 95")
        if self.workers < 1:
            raise UserError("--workers must be positive")
        if not self.images.is_dir():
            raise UserError(f"no directory {self.images}: give the one with the images as --images")
        if recipe_of(self.images):
            raise UserError(f"{self.images} was made by shard-tools align: give the images that it was made of")
        check_directory(self.out)


class Align(Command[AlignConfig]):
    """Cropping the faces of a directory of images."""

    def results(self, options: AlignConfig) -> Path:
        return options.out

    def shared(self, options: AlignConfig) -> bool:
        return bool(options.task)

    def progress(self, options: AlignConfig) -> int:
        """The chunks that are done: files in the directory of the unfinished work."""
        return sum(1 for _ in (options.out / UNFINISHED).rglob("*"))


COMMANDS = (
    Align(
        name="align",
        summary="crop the faces out of images, as ArcFace's are or as squares",
        options=AlignConfig,
        work="shard_tools.align.directory:align_directory",
    ),
)
