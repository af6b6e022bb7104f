"""One image and a recipe: its crop, or why there is none."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shard_tools.align.detector import Pixels, find_faces
from shard_tools.align.recipe import Recipe, Rule
from shard_tools.align.warp import Points, crop_to_image, warp
from shard_tools.images import ImageError, decoded

FORMATS = {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
"""By the suffix of the name; JPEG otherwise."""
MOST_OUTSIDE = 1.5
"""How far a landmark may be from an image's middle, in its longer sides: a face may lie in part outside."""
DECIMALS = 2
"""Of a landmark, pixels: a list that has so many gives the same crop."""


class Crop(NamedTuple):
    """An encoded crop, and of which face."""

    encoded: bytes
    landmarks: Points
    """Of the face, in pixels of the upright image; shape (5, 2), or (2, 2) of its eyes alone."""
    faces: int
    """Found in the image."""


def align_encoded(
    encoded: bytes, recipe: Recipe, faces: Sequence[Points] | None = None, quality: int = 95, suffix: str = ".jpg"
) -> Crop:
    """The crop of an encoded image, upright by its EXIF tag, recipe.size pixels square; a gray one stays gray.

    `faces` are the landmarks of its faces, each (2, 2) or (5, 2), where they are known: else a detector finds them.
    Raises ImageError with the reason if there is no crop, UserError if the detector is not installed.
    """
    image = decoded(encoded)
    pixels = np.asarray(image.convert("RGB"))
    landmarks, count = _choose(pixels, recipe, faces)
    crop = warp(image, crop_to_image(landmarks, recipe), recipe.size)
    buffer = io.BytesIO()
    if form := FORMATS.get(suffix.lower()):
        crop.save(buffer, form, lossless=True)
    else:
        crop.save(buffer, "JPEG", quality=quality)
    return Crop(buffer.getvalue(), landmarks, count)


def _choose(pixels: Pixels, recipe: Recipe, faces: Sequence[Points] | None) -> tuple[Points, int]:
    """The landmarks of the face to crop, rounded, and the number of faces; ImageError if there is none."""
    if faces is None:
        found = find_faces(pixels)
        areas = [float(np.prod(face.box[2:] - face.box[:2])) for face in found]
        faces = [face.landmarks for face in found]
    else:
        areas = [float(np.sum((points[1] - points[0]) ** 2)) for points in faces]
    if not faces:
        raise ImageError("no face was found in it")
    if len(faces) > 1 and recipe.faces == "refuse":
        raise ImageError(f"{len(faces)} faces were found in it")
    middle = np.array(pixels.shape[1::-1]) / 2
    if max(float(np.abs(points - middle).max()) for points in faces) > MOST_OUTSIDE * max(pixels.shape[:2]):
        raise ImageError("landmarks of a face lie far outside of it")
    order: dict[Rule, list[float]] = {
        "largest": [-area for area in areas],
        "central": [float(np.hypot(*(points.mean(axis=0) - middle))) for points in faces],
        "refuse": [0.0],
    }
    chosen = faces[int(np.argmin(order[recipe.faces]))]
    return chosen.round(DECIMALS), len(faces)
