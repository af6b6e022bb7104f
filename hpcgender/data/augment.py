"""How a sample is varied: the parameters of its augmentation, drawn for (seed, epoch, sample) and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcgender.data.draws import uniform

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random variation. Colour factors are drawn from [1 - x, 1 + x], the hue from [-x, x] degrees."""

    crop_area: float = 1.0
    """Smallest part of the centre square's area that a random crop keeps."""
    crop_ratio: float = 1.0
    """Largest ratio of a crop's width to its height, and of its height to its width."""
    flip: float = 0.0
    """Probability of a horizontal flip."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    @property
    def has_colour(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))


PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(
        crop_area=0.8, crop_ratio=1.1, flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=3.0
    ),
}


@dataclass(frozen=True)
class Draws:
    """The parameters of n samples, one row each."""

    size: Floats
    """(n, 2): height and width of the crop, as parts of the image's shorter side."""
    corner: Floats
    """(n, 2): where the crop lies, from 0 (top, left) to 1 (bottom, right)."""
    mirror: npt.NDArray[np.int32]
    """(n,): 1 to flip horizontally."""
    colour: Floats
    """(n, 4): factors of brightness, contrast and saturation, and the hue's turn in degrees."""


def draw(augmentation: Augmentation, seed: int, epoch: int, samples: npt.NDArray[np.int64]) -> Draws:
    """The augmentation of each sample in an epoch."""

    def between(purpose: str, low: float, high: float) -> npt.NDArray[np.float64]:
        return low + (high - low) * uniform(seed, epoch, purpose, samples)

    a = augmentation
    side = np.sqrt(between("area", a.crop_area, 1.0))
    stretch = np.exp(between("ratio", -np.log(a.crop_ratio), np.log(a.crop_ratio)) / 2)
    return Draws(
        size=np.minimum(np.stack([side / stretch, side * stretch], axis=1), 1.0).astype(np.float32),
        corner=np.stack([between("top", 0.0, 1.0), between("left", 0.0, 1.0)], axis=1).astype(np.float32),
        mirror=(uniform(seed, epoch, "flip", samples) < a.flip).astype(np.int32),
        colour=np.stack(
            [
                between("brightness", 1 - a.brightness, 1 + a.brightness),
                between("contrast", 1 - a.contrast, 1 + a.contrast),
                between("saturation", 1 - a.saturation, 1 + a.saturation),
                between("hue", -a.hue, a.hue),
            ],
            axis=1,
        ).astype(np.float32),
    )


def centred(count: int) -> Draws:
    """The parameters of evaluation: the whole centre square, nothing else changed."""
    return Draws(
        size=np.ones((count, 2), dtype=np.float32),
        corner=np.full((count, 2), 0.5, dtype=np.float32),
        mirror=np.zeros(count, dtype=np.int32),
        colour=np.tile(np.array([1, 1, 1, 0], dtype=np.float32), (count, 1)),
    )
