"""The recipe of a crop, the options that give one, and the file that holds it beside a directory of crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from shard_tools.base.commands import default_is
from shard_tools.base.documents import read_document, restored
from shard_tools.base.errors import UserError

Template = Literal["arcface", "square"]
Rule = Literal["largest", "central", "refuse"]
SIDES = (16, 2048)
"""Least and largest side of a crop, pixels."""
MARGINS = (-0.15, 2.0)
"""Least and largest margin: with less than the first, the mouth lies outside of the crop."""
ALIGNMENT, CROPS = "alignment.json", "images"
"""The file, and the directory of the crops beside it."""
FORM = "hpcgender-alignment-1"
FROM_FILE = "file"
"""Instead of a detector, in a recipe."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How faces were cropped. Two recipes of one template and margin show a face in the same frame."""

    template: Template
    size: int
    """Side of the crops, pixels."""
    margin: float
    """On each side of the template, as a fraction of its side; below 0 the crop is smaller than the template."""
    faces: Rule
    landmarks: str
    """What found the faces: a detector with its version, or `file`; empty if the images were crops already."""

    @property
    def frame(self) -> str:
        """What is seen of a face, in words: equal for crops that a network may take for each other."""
        return f"{self.template} crops{f' with margin {self.margin:g}' if self.margin else ''}"

    @property
    def description(self) -> str:
        """All of it in words, for people."""
        if not self.landmarks:
            return f"{self.frame}, made elsewhere"
        by = "of a file" if self.landmarks == FROM_FILE else f"by {self.landmarks}"
        one = {"largest": "the largest face", "central": "the most central face", "refuse": "images of one face"}
        return f"{self.frame} of {self.size} pixels, landmarks {by}, {one[self.faces]}"


@dataclass(kw_only=True)
class CropOptions:
    """The options of a recipe."""

    template: Template = "arcface"
    """arcface: turned upright, with eyes, nose and mouth where MS1MV2 and other sets for ArcFace have them; square: a
    square of that size around the same place, not turned."""
    crop_size: int = 112
    """Side of the crops, pixels."""
    crop_margin: float = 0.0
    """Margin on each side, as a fraction of the template's side: 0.3 shows hair and chin, -0.1 eyes, nose and mouth
    alone. What the image has not is black."""
    faces: Rule = "largest"
    """Which of several faces to crop: the largest, the most central, or none: then the image is left out."""
    landmarks: Annotated[Path | None, default_is("a detector finds the faces", "FILE")] = None
    """CSV, TSV, Parquet or list with the eyes of each face, or eyes, nose and mouth, such as CelebA's
    list_landmarks_celeba.txt and VGGFace2's loose_landmark_train.csv: no detector is needed then. Which of two points
    is the left one is seen from their coordinates."""

    def check_crop(self) -> None:
        """Raises UserError for options that cannot work."""
        least, most = SIDES
        if not least <= self.crop_size <= most:
            raise UserError(f"--crop-size {self.crop_size} is not from {least} to {most} pixels")
        least_margin, most_margin = MARGINS
        if not least_margin <= self.crop_margin <= most_margin:
            raise UserError(f"--crop-margin {self.crop_margin:g} is not from {least_margin:g} to {most_margin:g}")

    def recipe_by(self, landmarks: str) -> Recipe:
        """The recipe, with what finds the faces."""
        return Recipe(
            template=self.template,
            size=self.crop_size,
            margin=self.crop_margin,
            faces=self.faces,
            landmarks=landmarks,
        )


def recipe_of(crops: Path) -> Recipe | None:
    """The recipe of the crops in a directory that `shard-tools align` made; None if another did, or they are photos.

    Raises UserError if the file with it is damaged.
    """
    path = crops.resolve().parent / ALIGNMENT
    if crops.resolve().name != CROPS or not path.exists():
        return None
    again = "align the images again"
    return restored(Recipe, read_document(path, FORM, again, again)["recipe"], path, again)
