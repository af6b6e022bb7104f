"""Corruptions of images, each with five severities: pure functions of an image's pixels and its key.

After Hendrycks & Dietterich (Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019,
arXiv 1903.12261), and as there on what the network sees: 8-bit RGB of the network's input size. A corruption of the
packed image would mean another thing in each data set, as much of it would be gone once the image is made smaller.
Lengths are fractions of the side, so they mean the same part of a face at any input size; noise and JPEG are per pixel
of the input.

Random numbers are of the image's key and the corruption: every model, rank and batch sees the same pixels, and from one
severity to the next nothing changes but the strength.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcgender.data.counter_rng import uniform

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Draw = Callable[[int], Floats]
"""The first random numbers in [0, 1) of an image and a corruption, so many; the same ones at each call."""

SEVERITIES = (1, 2, 3, 4, 5)
LUMA = np.array([0.299, 0.587, 0.114])
"""Of R, G and B in a gray level, ITU-R BT.601."""
MIDDLE = 128
"""Gray level of an occluding block."""


@dataclass(frozen=True)
class Corruption:
    """A corruption: what its strength is measured in, and the strength of each severity."""

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Pixels, float, Draw], npt.NDArray[Any]]
    """Of an image (size, size, 3): gray levels, which are rounded and clipped to 0 to 255."""


def corrupt(pixels: Pixels, name: str, severity: int, key: bytes) -> Pixels:
    """An image (size, size, 3) corrupted with a severity from 1 to 5; `key` is the image's."""
    corruption = CORRUPTIONS[name]
    seed = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
    draw = partial(draw_uniform, seed, name)
    levels = corruption.apply(pixels, corruption.strengths[severity - 1], draw)
    rounded: Pixels = np.rint(levels).clip(0, 255).astype(np.uint8)
    return rounded


def draw_uniform(seed: int, name: str, count: int) -> Floats:
    """Random numbers in [0, 1), float64 (count,)."""
    return uniform(seed, 0, f"corrupt {name}", np.arange(count))


def blur(pixels: Pixels, sigma: float, draw: Draw) -> Floats:
    """A Gaussian's standard deviation, in sides; the image is mirrored at its border."""
    from scipy.ndimage import gaussian_filter

    in_pixels = sigma * len(pixels)
    smooth: Floats = gaussian_filter(pixels.astype(np.float64), (in_pixels, in_pixels, 0), mode="mirror", truncate=3)
    return smooth


def motion_blur(pixels: Pixels, length: float, draw: Draw) -> Floats:
    """The mean along a straight way of that length, in sides, in a random direction."""
    from scipy.ndimage import convolve

    half = length * len(pixels) / 2
    radius = int(np.ceil(half))
    angle = np.pi * draw(1)[0]
    way = np.linspace(-half, half, 8 * radius + 1)
    kernel = np.zeros((2 * radius + 2, 2 * radius + 2))
    y, x = radius + way * np.sin(angle), radius + way * np.cos(angle)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # each point is shared by the four pixels around it
        weights = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
        np.add.at(kernel, (top + down, left + right), weights)
    kernel = kernel[:-1, :-1, None] / kernel.sum()
    moved: Floats = convolve(pixels.astype(np.float64), kernel, mode="mirror")
    return moved


def gaussian_noise(pixels: Pixels, deviation: float, draw: Draw) -> Floats:
    """Noise of that standard deviation in each pixel and colour."""
    from scipy.special import ndtri

    noise: Floats = ndtri(draw(pixels.size) + 2.0**-54).reshape(pixels.shape)
    return pixels + deviation * noise


def shot_noise(pixels: Pixels, photons: float, draw: Draw) -> npt.NDArray[Any]:
    """Poisson's noise of so many photons in a white pixel, in each pixel and colour."""
    ladder, rungs = poisson_ladder(photons)
    of_level = pixels.ravel().astype(np.int64)
    counts = np.searchsorted(ladder.ravel(), of_level + draw(pixels.size), side="right") - rungs * of_level
    return counts.reshape(pixels.shape) * np.float64(255 / photons)


@lru_cache(maxsize=len(SEVERITIES))
def poisson_ladder(photons: float) -> tuple[Floats, int]:
    """The gray level plus the probability of at most k photons, ascending, (256, k), and how many k there are."""
    from scipy.special import pdtr

    most = int(photons + 10 * np.sqrt(photons) + 10)
    levels = np.arange(256)[:, None]
    return levels + pdtr(np.arange(most), levels * (photons / 255)), most


def jpeg(pixels: Pixels, quality: float, draw: Draw) -> Pixels:
    """Encoded with that quality, chroma at half resolution, and decoded."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(quality), subsampling="4:2:0")
    with Image.open(file) as image:
        return np.asarray(image)


def low_resolution(pixels: Pixels, part: float, draw: Draw) -> Pixels:
    """Shrunk to that part of the side by averaging, and enlarged again between pixels' centres."""
    side = len(pixels)
    small = max(1, round(side * part))
    image = Image.fromarray(pixels).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def exposure(pixels: Pixels, stops: float, draw: Draw) -> Pixels:
    """2**stops times the light, in sRGB's linear light; what is brighter than white is white."""
    return exposed_levels(stops)[pixels]


@lru_cache(maxsize=2 * len(SEVERITIES))
def exposed_levels(stops: float) -> Pixels:
    """The gray level that each becomes, (256,), by sRGB's curve (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    light = np.minimum(light * 2.0**stops, 1)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    levels: Pixels = np.rint(255 * shown).astype(np.uint8)
    return levels


def contrast(pixels: Pixels, factor: float, draw: Draw) -> Floats:
    """That factor times each colour's distance from its mean over the image."""
    mean: Floats = pixels.mean((0, 1), dtype=np.float64)
    levels: Floats = mean + factor * (pixels - mean)
    return levels


def occlusion(pixels: Pixels, part: float, draw: Draw) -> Pixels:
    """A gray square of that part of the side, somewhere within the image; larger ones cover smaller ones."""
    side = len(pixels)
    block = round(side * part)
    top, left = np.rint(draw(2) * (side - block)).astype(int).tolist()
    covered = pixels.copy()
    covered[top : top + block, left : left + block] = MIDDLE
    return covered


def grey(pixels: Pixels, part: float, draw: Draw) -> Floats:
    """That part of the colour removed, none of the lightness."""
    levels: Floats = pixels + part * ((pixels @ LUMA)[..., None] - pixels)
    return levels


CORRUPTIONS = {
    "blur": Corruption("standard deviation, sides", (0.01, 0.015, 0.02, 0.03, 0.04), blur),
    "motion-blur": Corruption("length, sides", (0.04, 0.07, 0.1, 0.15, 0.2), motion_blur),
    "gaussian-noise": Corruption("standard deviation, gray levels", (10, 20, 35, 50, 70), gaussian_noise),
    "shot-noise": Corruption("photons in white", (60, 25, 12, 5, 3), shot_noise),
    "jpeg": Corruption("quality", (40, 25, 15, 10, 5), jpeg),
    "low-resolution": Corruption("part of the side", (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8), low_resolution),
    "darkness": Corruption("stops of exposure", (-1, -2, -3, -4, -5), exposure),
    "over-exposure": Corruption("stops of exposure", (0.5, 1, 1.5, 2, 3), exposure),
    "contrast": Corruption("factor", (0.6, 0.45, 0.3, 0.2, 0.1), contrast),
    "occlusion": Corruption("side of the block, sides", (0.2, 0.3, 0.4, 0.5, 0.6), occlusion),
    "grey": Corruption("part of the colour removed", (0.2, 0.4, 0.6, 0.8, 1), grey),
}
"""All of them by their names, in the order of tables."""
PER_PIXEL = ("gaussian-noise", "shot-noise", "jpeg")
"""Those whose strength is of single pixels of the input, which are other parts of a face at another input size."""
