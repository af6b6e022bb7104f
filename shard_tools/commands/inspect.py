"""`shard-tools inspect`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_file

MAX_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Shows what a packed data set holds: tables of its labels, a sheet of faces, a page with both, a row per image, or
    one sample."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Packed data set: the directory with manifest.json."""
    split: str | None = None
    """Look at this split alone, such as train."""
    json: bool = False
    """Print the numbers as one JSON object instead of tables."""
    sheet: Path | None = None
    """PNG file to write: a contact sheet of faces drawn at random, as many of each gender, with their labels."""
    html: Path | None = None
    """HTML file to write: one page with the tables, histograms and faces, which needs no other file."""
    csv: Path | None = None
    """CSV file to write: a row per image with its file, split, gender, age, subject, group and key. shard-tools pack
    table --mapping packed packs the images so again."""
    count: int = 48
    """Faces on the sheet and the page."""
    seed: int = 0
    """Draws the faces; the same seed draws the same ones."""
    sample: Annotated[str | None, tyro.conf.arg(metavar="N|KEY")] = None
    """Show one sample instead, with its picture on a colour terminal: its number in the split (the first split, if
    --split names none), counted from 0, or its key. Write a key that is a number as key:00042."""
    image: Path | None = None
    """File to write with the encoded image of --sample, byte for byte."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not 1 <= self.count <= MAX_COUNT:
            raise UserError(f"--count {self.count}: give 1 to {MAX_COUNT}")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed} must not be negative")
        if self.image and self.sample is None:
            raise UserError("--image writes the image of one sample: add --sample N, or ask for a --sheet")
        if self.sample is not None and (self.sheet or self.html or self.csv):
            raise UserError("--sample shows one sample alone: use --image FILE for its picture, or leave --sample out")
        for path, suffix in ((self.sheet, ".png"), (self.html, ".html"), (self.csv, ".csv"), (self.image, "")):
            if path:
                check_file(path, suffix)


class Inspect(Command[InspectConfig]):
    """Showing what a data set holds."""

    def data(self, options: InspectConfig) -> Path:
        return options.data


COMMANDS = (
    Inspect(
        name="inspect",
        summary="show what a packed data set holds: tables, faces, one sample",
        options=InspectConfig,
        work="shard_tools.inspect.inspection:inspect_shards",
    ),
)
