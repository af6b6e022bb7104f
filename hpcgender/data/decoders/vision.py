"""Pixels without DALI, for machines that cannot have it: the same samples, the same draws, the same steps.

Pillow decodes, as torchvision's own decoders are deprecated; every step rounds to whole gray levels where DALI's graph
does. What DALI makes of the same draws differs from it by less than 0.5 gray levels in the mean of any image, and by at
most 8 in any pixel: in gray, CMYK, palette and alpha, JPEG, PNG and WebP, whatever EXIF says of the orientation. With
the presets, 2,002 faces of UTKFace differed by 0.15 in the mean of all, by 0.29 in that of the worst, and by 3 in the
worst pixel; colours that are stretched much further than the presets do stretch the difference as well.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import grid_sample

from hpcgender.data.augment import Draws, Floats
from hpcgender.data.decoders.decoder import MEAN, STD, BadImages
from hpcgender.data.shards import Encoded
from shard_tools.exif import orientations, upright
from shard_tools.images import ImageError, opened

TASK = 16
"""Images that a thread makes at a time."""

RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
"""As DALI's color_twist has them."""


class Batch(NamedTuple):
    """A batch in the queue: `images` are complete when all tasks are done; a task returns its bad rows with reasons."""

    images: torch.Tensor
    tasks: list[Future[dict[int, str]]]


class VisionDecoder:
    """A pool of threads, each of which makes some images of a batch."""

    def __init__(self, image_size: int, device: torch.device, threads: int) -> None:
        self.image_size = image_size
        self.device = device
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.under_way: deque[Batch] = deque()

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.under_way.append(self.start(encoded, draws))

    def start(self, encoded: list[Encoded], draws: Draws) -> Batch:
        shape = (len(encoded), 3, self.image_size, self.image_size)
        images = torch.empty(shape, dtype=torch.float32, pin_memory=self.device.type == "cuda")
        out = images.numpy()
        matrices = colour_twist(draws.colour)
        erased = draws.erased(self.image_size)

        def fault(row: int) -> str:
            try:
                face = cropped(encoded[row], draws.size[row], draws.corner[row], self.image_size)
            except ImageError as error:
                return str(error)
            if draws.angle[row]:
                face = rotated(face, float(draws.angle[row]))
            if matrices[row]:
                face = face.convert("RGB", matrices[row])
            pixels = np.asarray(face)
            if draws.sigma[row]:
                pixels = blurred(pixels, float(draws.sigma[row]))
            if draws.mirror[row]:
                pixels = pixels[:, ::-1]
            normalised(pixels, out[row])
            top, left, height, width = erased[row]
            out[row, :, top : top + height, left : left + width] = 0
            return ""

        def faults(rows: range) -> dict[int, str]:
            return {row: why for row in rows if (why := fault(row))}

        begins = range(0, len(encoded), TASK)
        return Batch(images, [self.pool.submit(faults, range(b, min(b + TASK, len(encoded)))) for b in begins])

    def result(self) -> torch.Tensor:
        images, tasks = self.under_way[0]
        faults = {row: why for task in tasks for row, why in task.result().items()}
        if faults:
            raise BadImages(faults)
        self.under_way.popleft()
        return images.to(self.device, non_blocking=True)

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.under_way.popleft()
        if encoded:
            self.under_way.appendleft(self.start(encoded, draws))


def cropped(encoded: Encoded, size: Floats, corner: Floats, image_size: int) -> Image.Image:
    """The crop of an image by a row of Draws, upright, in RGB, resized; ImageError if it does not decode."""
    file = encoded.tobytes()
    with opened(file) as image:
        face = rgb(image)
        face = upright(face, orientations(file, image))
    whole = np.array([face.height, face.width], dtype=np.float32)
    crop = np.maximum(np.floor(size * whole.min() + np.float32(0.5)), 1)
    top, left = np.floor(corner * (whole - crop) + np.float32(0.5)).astype(int).tolist()
    height, width = crop.astype(int).tolist()
    face = face.crop((left, top, left + width, top + height))
    # Where it averages, DALI's filter finds the border repeated outside of the crop, Pillow's finds nothing.
    below, beside = (-(-side // image_size) if side > image_size else 0 for side in (height, width))
    if below or beside:
        face = Image.fromarray(np.pad(np.asarray(face), ((below, below), (beside, beside), (0, 0)), mode="edge"))
    box = (beside, below, beside + width, below + height)
    return face.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def normalised(pixels: npt.NDArray[np.uint8], out: Floats | None = None) -> Floats:
    """Pixels (size, size, 3) as the network takes them, float32 (3, size, size) in [-1, 1]; in `out` if it is given."""
    values: Floats = np.divide(pixels.transpose(2, 0, 1) - np.float32(MEAN), np.float32(STD), out=out)
    return values


def rgb(image: Image.Image) -> Image.Image:
    """An image in 8 bit RGB as DALI has it: 16 bits are rounded to 8, and transparency is forgotten."""
    if image.mode.startswith("I"):
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    image.load()
    image.info.pop("transparency", None)
    return image.convert("RGB")


def rotated(face: Image.Image, degrees: float) -> Image.Image:
    """Rotates a square image counter-clockwise about its centre, bilinear, the border repeated."""
    place = (np.arange(face.width) + 0.5) * 2 / face.width - 1  # from the centre, in halves of the side
    turn = np.deg2rad(degrees)
    x = np.cos(turn) * place[None, :] - np.sin(turn) * place[:, None]
    y = np.sin(turn) * place[None, :] + np.cos(turn) * place[:, None]
    grid = torch.from_numpy(np.stack([x, y], axis=2)[None].astype(np.float32))
    pixels = torch.from_numpy(np.asarray(face).transpose(2, 0, 1)[None].astype(np.float32))
    turned = grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return Image.fromarray(turned[0].permute(1, 2, 0).round().to(torch.uint8).numpy())


def colour_twist(colour: Floats) -> list[tuple[float, ...]]:
    """What DALI's color_twist makes of (n, 4) factors: for each a 3x4 linear map of RGB; () where nothing changes.

    Hue turns, and saturation scales, the chrominance in YIQ; contrast is about gray level 128, brightness a factor.
    """
    brightness, contrast, saturation, hue = colour.astype(np.float64).T
    turn = np.zeros((len(colour), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * np.cos(np.deg2rad(hue))
    turn[:, 1, 2] = saturation * np.sin(np.deg2rad(hue))
    turn[:, 2, 1] = -turn[:, 1, 2]
    maps = np.empty((len(colour), 3, 4))
    maps[:, :, :3] = (brightness * contrast)[:, None, None] * (YIQ_TO_RGB @ turn @ RGB_TO_YIQ)
    maps[:, :, 3] = (128 * (1 - contrast) * brightness)[:, None]
    changes = (colour != np.array([1, 1, 1, 0])).any(axis=1)
    return [tuple(m.ravel().tolist()) if change else () for m, change in zip(maps, changes, strict=True)]


def blurred(pixels: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    """Convolved with a Gaussian of radius ceil(3 sigma), the window of DALI's; the image is mirrored at its border."""
    radius = int(np.ceil(3 * sigma))
    place = np.arange(-radius, radius + 1)
    window = np.exp(-0.5 * (place / sigma) ** 2)
    window = (window / window.sum()).astype(np.float32)
    smooth = pixels.astype(np.float32)
    for axis in (0, 1):
        padding = [(radius, radius) if axis == a else (0, 0) for a in range(3)]
        wide = np.pad(smooth, padding, mode="reflect")
        smooth = np.zeros_like(smooth)
        for begin, weight in enumerate(window):
            part = wide[begin : begin + len(pixels)] if axis == 0 else wide[:, begin : begin + len(pixels)]
            smooth += weight * part
    return np.rint(smooth).astype(np.uint8)
