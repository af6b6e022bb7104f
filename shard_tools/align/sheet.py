"""The contact sheet of an alignment: photos with the landmarks that were found in them, each beside its crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from shard_tools.align.recipe import Recipe
from shard_tools.base.colours import ACCENTS
from shard_tools.base.sheet import CARD, Card, draw_sheet
from shard_tools.base.text import plural
from shard_tools.images import decoded

SIDE, GAP = 150, 6
"""Of a photo and of a crop, and between them, pixels."""
EMPTY = "#e6e4de"
DOT = 3
"""Radius of a landmark, pixels."""
PAIRS = 24


def pair(photo: bytes, crop: bytes, landmarks: Sequence[float]) -> Image.Image:
    """A photo and its crop, RGB; `landmarks` are x, y, x, y ... in pixels of the photo."""
    before = decoded(photo).convert("RGB")
    scale = min(SIDE / before.width, SIDE / before.height)
    small = ImageOps.contain(before, (SIDE, SIDE), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(small)
    for x, y in (np.reshape(landmarks, (-1, 2)) + 0.5) * scale:
        pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=ACCENTS[0], outline="white")
    after = ImageOps.contain(decoded(crop).convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    both = Image.new("RGB", (2 * SIDE + GAP, SIDE), CARD)
    for left, shown in ((0, small), (SIDE + GAP, after)):
        both.paste(EMPTY, (left, 0, left + SIDE, SIDE))
        both.paste(shown, (left + (SIDE - shown.width) // 2, (SIDE - shown.height) // 2))
    return both


def alignment_sheet(
    images: Path, crops: Path, findings: Sequence[tuple[str, int, Sequence[float]]], recipe: Recipe, cropped: int
) -> Image.Image:
    """The sheet, RGB, of some images: the name of each below both directories, its number of faces, its landmarks."""
    cards = [
        Card(
            picture=pair((images / name).read_bytes(), (crops / name).read_bytes(), landmarks),
            label=min(faces, 2) - 1,
            name=plural(faces, "face"),
            age="",
            details=(name,),
        )
        for name, faces, landmarks in findings
    ]
    lines = [f"{len(cards)} of {plural(cropped, 'image')}: the photo and its crop; {recipe.description}"]
    return draw_sheet([cards], "Before and after", lines)
