"""The augmentations with their probabilities and ranges, as presets and TOML files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shard_tools.base.documents import read_toml
from shard_tools.base.errors import UserError, unknown

PROBABILITY = (0.0, 1.0)
LIMITS = {
    "crop": PROBABILITY,
    "crop_area": (0.01, 1.0),
    "crop_ratio": (1.0, 10.0),
    "flip": PROBABILITY,
    "colour": PROBABILITY,
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "hue": (0.0, 180.0),
    "grayscale": PROBABILITY,
    "rotation": PROBABILITY,
    "rotation_degrees": (0.0, 180.0),
    "blur": PROBABILITY,
    "blur_sigma": (0.1, 50.0),
    "erase": PROBABILITY,
    "erase_area": (0.001, 1.0),
    "erase_ratio": (1.0, 10.0),
}
"""Minimum and maximum of each field of an Augmentation."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """For each augmentation, its probability per image and the range of its parameter.

    They are applied in the order of the fields, except that flip and erase come last. Raises ValueError for a value
    outside `LIMITS`.
    """

    crop: float = 1.0
    """Probability of a random crop; otherwise the centre square is used."""
    crop_area: float = 1.0
    """Minimum area of a random crop, as a fraction of the centre square's."""
    crop_ratio: float = 1.0
    """Maximum aspect ratio of a random crop, width to height or height to width."""
    flip: float = 0.0
    """Probability of a horizontal flip."""
    rotation: float = 0.0
    """Probability of a rotation about the centre; pixels from outside the image repeat its border."""
    rotation_degrees: float = 10.0
    """Maximum angle of the rotation in either direction, in degrees."""
    colour: float = 1.0
    """Probability of colour jitter: brightness, contrast, saturation and hue together."""
    brightness: float = 0.0
    """Factors of brightness, contrast and saturation are drawn from [1 - x, 1 + x]."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """The rotation of hue is drawn from [-x, x] degrees."""
    grayscale: float = 0.0
    """Probability of conversion to grayscale."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.5, 2.0)
    """Range of the blur's standard deviation, in pixels of the network's input."""
    erase: float = 0.0
    """Probability of random erasing (arXiv 1708.04896): a rectangle is set to mid-gray, which is 0 for the network."""
    erase_area: tuple[float, float] = (0.02, 0.2)
    """Range of the erased area, as a fraction of the image."""
    erase_ratio: float = 3.0
    """Maximum aspect ratio of the rectangle, width to height or height to width."""

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            ends = value if isinstance(value, tuple) else (value,)
            if not all(low <= end <= high for end in ends):  # nor is nan
                kind = "a probability" if LIMITS[name] is PROBABILITY else "numbers" if len(ends) > 1 else "a number"
                raise ValueError(f"{name} is {_shown(value)}: give {kind} from {low:g} to {high:g}")
            if ends[0] > ends[-1]:
                raise ValueError(f"{name} is {_shown(value)}: give the least first")

    @property
    def crops(self) -> bool:
        return self.crop > 0 and (self.crop_area < 1 or self.crop_ratio > 1)

    @property
    def jitters(self) -> bool:
        return self.colour > 0 and any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def changes_colour(self) -> bool:
        return self.jitters or self.grayscale > 0

    @property
    def rotates(self) -> bool:
        return self.rotation > 0 and self.rotation_degrees > 0


_LIGHT = Augmentation(crop_area=0.8, crop_ratio=1.1, flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=3.0)
_MODERATE = replace(_LIGHT, crop_area=0.7, crop_ratio=1.15, rotation=0.3)
PRESETS = {
    "none": Augmentation(),
    "light": _LIGHT,
    "moderate": _MODERATE,
    "strong": replace(_MODERATE, crop_area=0.6, grayscale=0.3, erase=0.25),
    "degraded": Augmentation(
        flip=0.5, colour=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=6.0, blur=0.5, blur_sigma=(0.5, 2.0)
    ),
}


@dataclass(frozen=True, kw_only=True)
class _File(Augmentation):
    """What a TOML file may set."""

    preset: str = "none"


def read_augmentation(name: str) -> Augmentation:
    """The preset of that name, or the augmentation in a TOML file (*.toml).

    The file gives fields of `Augmentation`, and optionally `preset`, whose values the others have. Raises UserError.
    """
    if not name.endswith(".toml"):
        if name not in PRESETS:
            raise unknown("augmentation", name, [*PRESETS, "FILE.toml"])
        return PRESETS[name]
    values = read_toml(Path(name)).values(_File)
    preset = values.pop("preset", _File.preset)
    if preset not in PRESETS:
        raise unknown(f"preset in {name}", preset, list(PRESETS))
    try:
        return replace(PRESETS[preset], **values)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _shown(value: Any) -> str:
    return f"[{', '.join(f'{end:g}' for end in value)}]" if isinstance(value, tuple) else f"{value:g}"
