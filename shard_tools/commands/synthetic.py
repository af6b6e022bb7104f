"""`shard-tools synthetic`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from shard_tools.base.commands import Command

Names: TypeAlias = Literal["morph", "utkface"]


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Draw a data set of synthetic faces, labelled by their file names."""

    out: Path
    """Directory to draw into: new or empty."""
    count: int = 2400
    """Number of pictures. A smaller number draws the first ones of a larger number."""
    seed: int = 0
    """The same seed draws the same files, byte for byte."""
    size: int = 112
    """Side of the square pictures in pixels."""
    names: Names = "morph"
    """morph: subject, picture, gender, age, as in 000017_01M46.JPG. utkface: age, gender (0 male, 1 female), group of
    drawn skin tones (0 to 4), time stamp, as in 46_0_2_20170101000500000.jpg."""
    quality: int = 90
    """JPEG quality, 1 to 95."""
    workers: int = 1
    """Number of processes. Any number draws the same files."""


COMMANDS = (
    Command(
        name="synthetic",
        summary="draw faces into files",
        options=SyntheticConfig,
        work="shard_tools.synthetic.files:draw_faces",
    ),
)
