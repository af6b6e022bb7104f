"""The augmentation parameters of each sample, as a pure function of (seed, epoch, sample)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hpcgender.data.augmentation import Augmentation
from hpcgender.data.counter_rng import uniform

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """The augmentation parameters of n samples, one row each."""

    size: Floats
    """(n, 2): height and width of the crop, as fractions of the image's shorter side."""
    corner: Floats
    """(n, 2): position of the crop, from 0 (top, left) to 1 (bottom, right)."""
    mirror: npt.NDArray[np.int32]
    """(n,): 1 to flip horizontally."""
    angle: Floats
    """(n,): angle of the rotation in degrees, counter-clockwise; 0: none."""
    colour: Floats
    """(n, 4): factors of brightness, contrast and saturation, and the rotation of hue in degrees."""
    sigma: Floats
    """(n,): standard deviation of the blur in pixels of the network's input; 0: none."""
    erase: Floats
    """(n, 4): top, left, height and width of the erased rectangle, as fractions of the network's input; 0: none."""

    def rows(self, chosen: list[int] | slice | npt.NDArray[np.int64]) -> Draws:
        """The parameters of some of the samples."""
        return Draws(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """The parameters of several lots of samples, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def erased(self, image_size: int) -> npt.NDArray[np.int32]:
        """The erased rectangles in pixels, int32 (n, 4): top, left, height and width."""
        pixels: npt.NDArray[np.int32] = np.floor(self.erase * np.float32(image_size) + np.float32(0.5)).astype(np.int32)
        return pixels


def centred(count: int) -> Draws:
    """The parameters of evaluation: the centre square, without augmentation."""
    return Draws(
        size=np.ones((count, 2), dtype=np.float32),
        corner=np.full((count, 2), 0.5, dtype=np.float32),
        mirror=np.zeros(count, dtype=np.int32),
        angle=np.zeros(count, dtype=np.float32),
        colour=np.tile(np.array([1, 1, 1, 0], dtype=np.float32), (count, 1)),
        sigma=np.zeros(count, dtype=np.float32),
        erase=np.zeros((count, 4), dtype=np.float32),
    )


def draw_each(
    augmentation: Augmentation, seed: int, passes: npt.NDArray[np.int64], samples: npt.NDArray[np.int64]
) -> Draws:
    """The augmentation parameters of samples (n,) in passes of their own (n,), which take the place of epochs."""
    found = np.unique(passes)
    if len(found) <= 1:
        return draw(augmentation, seed, int(found[0]) if len(found) else 0, samples)
    lots = [np.flatnonzero(passes == one) for one in found]
    parts = [draw(augmentation, seed, int(one), samples[lot]) for one, lot in zip(found, lots, strict=True)]
    return Draws.joined(parts).rows(np.argsort(np.concatenate(lots)))


def draw(augmentation: Augmentation, seed: int, epoch: int, samples: npt.NDArray[np.int64]) -> Draws:
    """The augmentation parameters of each sample in an epoch. An augmentation that is off costs nothing."""
    a = augmentation
    draws = centred(len(samples))

    def between(purpose: str, low: float, high: float) -> npt.NDArray[np.float64]:
        return low + (high - low) * uniform(seed, epoch, purpose, samples) if low < high else np.full(len(samples), low)

    def hit(purpose: str, probability: float) -> npt.NDArray[np.bool_]:
        if probability < 1:
            return uniform(seed, epoch, purpose, samples) < probability
        return np.ones(len(samples), dtype=np.bool_)

    if a.crops:
        cropped = hit("crop", a.crop)[:, None]
        size = _rectangle(between, "area", (a.crop_area, 1.0), "ratio", a.crop_ratio)
        corner = np.stack([between("top", 0.0, 1.0), between("left", 0.0, 1.0)], axis=1)
        np.copyto(draws.size, size, casting="same_kind", where=cropped)
        np.copyto(draws.corner, corner, casting="same_kind", where=cropped)
    if a.flip:
        draws.mirror[:] = hit("flip", a.flip)
    if a.rotates:
        angle = between("angle", -a.rotation_degrees, a.rotation_degrees)
        np.copyto(draws.angle, angle, casting="same_kind", where=hit("rotation", a.rotation))
    if a.jitters:
        factors = [
            between("brightness", 1 - a.brightness, 1 + a.brightness),
            between("contrast", 1 - a.contrast, 1 + a.contrast),
            between("saturation", 1 - a.saturation, 1 + a.saturation),
            between("hue", -a.hue, a.hue),
        ]
        jittered = hit("colour", a.colour)[:, None]
        np.copyto(draws.colour, np.stack(factors, axis=1), casting="same_kind", where=jittered)
    if a.grayscale:
        draws.colour[hit("grayscale", a.grayscale), 2] = 0
    if a.blur:
        np.copyto(draws.sigma, between("sigma", *a.blur_sigma), casting="same_kind", where=hit("blur", a.blur))
    if a.erase:
        erased = hit("erase", a.erase)[:, None]
        size = _rectangle(between, "erase area", a.erase_area, "erase ratio", a.erase_ratio)
        corner = np.stack([between("erase top", 0.0, 1.0), between("erase left", 0.0, 1.0)], axis=1) * (1 - size)
        np.copyto(draws.erase, np.concatenate([corner, size], axis=1), casting="same_kind", where=erased)
    return draws


def _rectangle(
    between: Callable[[str, float, float], npt.NDArray[np.float64]],
    area_purpose: str,
    area: tuple[float, float],
    ratio_purpose: str,
    ratio: float,
) -> npt.NDArray[np.float64]:
    """Heights and widths of rectangles in the unit square: uniform areas, log-uniform aspect ratios."""
    side = np.sqrt(between(area_purpose, *area))
    stretch = np.exp(between(ratio_purpose, -np.log(ratio), np.log(ratio)) / 2)
    sizes: npt.NDArray[np.float64] = np.minimum(np.stack([side / stretch, side * stretch], axis=1), 1.0)
    return sizes
