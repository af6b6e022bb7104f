"""Photos whose landmarks are known: five coloured dots on gray, and lists of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from shard_tools.align.directory import LANDMARKS
from shard_tools.align.warp import ARCFACE, Points

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""Of eyes, nose and corners of the mouth."""
HEADER = ",".join(["image", *LANDMARKS])


FINE = 4
"""Times as large as it will be is a photo drawn, so that a dot's middle is exact."""


def place(scale: float, degrees: float, centre: tuple[float, float]) -> Points:
    """The five landmarks of a face that is turned, `scale` times as large as in ArcFace's crops."""
    turn = scale * np.exp(1j * math.radians(degrees))
    points = ((ARCFACE - 56) @ [1, 1j]) * turn + complex(*centre)
    return np.column_stack([points.real, points.imag])


def photo(*faces: Points, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A photo of faces that are their landmarks alone."""
    image = Image.new("RGB", (size[0] * FINE, size[1] * FINE), (90, 90, 90))
    pen = ImageDraw.Draw(image)
    for face in faces:
        radius = 0.1 * FINE * float(np.linalg.norm(face[1] - face[0]))
        for (x, y), colour in zip((face + 0.5) * FINE - 0.5, COLOURS, strict=True):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image.reduce(FINE)


def seen(pixels: npt.NDArray[np.uint8]) -> Points:
    """Where the dots of a photo are, the middle of each."""
    found = [np.argwhere(np.abs(pixels.astype(int) - colour).sum(axis=-1) < 120).mean(axis=0) for colour in COLOURS]
    return np.array(found)[:, ::-1]


def line(name: str, face: Points) -> str:
    return ",".join([name, *(f"{value:.2f}" for value in face.ravel())])


def photos(root: Path, count: int) -> Path:
    """A directory of photos, and beside it landmarks.csv with their landmarks."""
    lines = [HEADER]
    for number in range(count):
        face = place(0.8 + 0.05 * number, 5 * number - 20, (150 + 5 * number, 140))
        path = root / "photos" / "ab"[number % 2] / f"{number}.{('jpg', 'png')[number % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(face).save(path)
        lines.append(line(str(path.relative_to(root / "photos")), face))
    return listed(root, lines)


def listed(root: Path, lines: Iterable[str]) -> Path:
    (root / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return root / "photos"
