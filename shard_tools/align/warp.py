"""From landmarks to a crop: the similarity that moves them to the template, and pixels without aliasing."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from shard_tools.align.recipe import Recipe

Points = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Eyes, nose and corners of the mouth in ArcFace's crops of 112 pixels, (x, y), left to right as seen: the template of
InsightFace (https://github.com/deepinsight/insightface) and of MS1MV2. Whole numbers are centres of pixels."""
ARCFACE_SIDE = 112


def crop_to_image(landmarks: Points, recipe: Recipe) -> Matrix:
    """The matrix (2, 3) that takes places in the crop to places in the image, both with the corner at 0.

    `landmarks` are the two eyes (2, 2), or eyes, nose and corners of the mouth (5, 2), as `ARCFACE` has them.
    """
    side = ARCFACE_SIDE * (1 + 2 * recipe.margin)
    scale = recipe.size / side
    template = (ARCFACE[: len(landmarks)] + 0.5 + ARCFACE_SIDE * recipe.margin) * scale
    matrix = similarity(template, landmarks + 0.5)
    if recipe.template == "square":
        factor = math.hypot(matrix[0, 0], matrix[1, 0])
        middle = np.full(2, recipe.size / 2)
        centre = matrix[:, :2] @ middle + matrix[:, 2]
        matrix = np.column_stack([factor * np.eye(2), centre - factor * middle])
    return matrix


def similarity(source: Points, target: Points) -> Matrix:
    """The rotation, scale and shift (2, 3) that takes points (k, 2) to others with the least squares of distances.

    Umeyama's (https://doi.org/10.1109/34.88573) in two dimensions, where a turn and a scale are one complex number.
    """
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    turn = np.vdot(a - a.mean(), b - b.mean()) / np.vdot(a - a.mean(), a - a.mean()).real
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def warp(image: Image.Image, matrix: Matrix, size: int) -> Image.Image:
    """The crop of `size` pixels that `crop_to_image` describes; black where the image ends.

    Where the crop is smaller than its part of the image, that is drawn in the image's own scale first, and made smaller
    then by a filter that sees all of its pixels.
    """
    fine = max(1, math.ceil(math.hypot(matrix[0, 0], matrix[1, 0])))
    steps = (matrix * np.array([1 / fine, 1 / fine, 1])).ravel().tolist()
    drawn = image.transform((size * fine, size * fine), Image.Transform.AFFINE, steps, Image.Resampling.BICUBIC)
    return drawn if fine == 1 else drawn.resize((size, size), Image.Resampling.BICUBIC)
