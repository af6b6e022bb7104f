"""Single images with their maps drawn over them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from shard_tools.base.files import write_whole

COLOURS = "RdBu"
"""Diverging and safe for the colour-blind: red is evidence for the first class, blue for the second."""
OPACITY = 0.75
"""Of a map's colour where it is strongest."""
SIDE = 224
"""Pixels that an overlay measures at least."""


def smooth(values: npt.NDArray[np.floating], height: int, width: int) -> npt.NDArray[np.float32]:
    """A map (h, w) resized to an image: float32 (height, width)."""
    stretched = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(stretched)


def opacity(evidence: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Of the colours of evidence in [-1, 1]: clear where it is near zero, and full from two thirds on."""
    part: npt.NDArray[np.floating] = OPACITY * np.minimum(1.5 * np.abs(evidence), 1)
    return part


def overlay(pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.floating], limit: float) -> Image.Image:
    """A face (size, size, 3) in gray with its map (h, w) in colour over it, clear where it is near zero.

    The colours end at -limit and limit.
    """
    side = max(len(pixels), SIDE)
    gray = np.asarray(Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BICUBIC))
    evidence = np.clip(smooth(values, side, side) / limit, -1, 1)
    colour = colormaps[COLOURS]((evidence + 1) / 2)[:, :, :3] * 255
    part = opacity(evidence)[:, :, None]
    return Image.fromarray(np.rint(gray[:, :, None] * (1 - part) + colour * part).astype(np.uint8))


def write_overlay(path: Path, pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.floating], limit: float) -> None:
    """Writes an overlay as JPEG."""
    buffer = io.BytesIO()
    overlay(pixels, values, limit).save(buffer, "JPEG", quality=92)
    write_whole(path, buffer.getvalue(), synced=False)  # one of very many, which can be made again
