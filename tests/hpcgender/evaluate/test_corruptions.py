"""Corruptions of drawn faces: each does what its name says, more with severity, and always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgender.robustness.corruptions import CORRUPTIONS, SEVERITIES, Pixels, corrupt

RANDOM = ("motion-blur", "gaussian-noise", "shot-noise", "occlusion")


@pytest.fixture(scope="module")
def pictures(faces: Path) -> list[Pixels]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(faces.glob("*.JPG"))[:12]]


def distance(left: Pixels, right: Pixels) -> float:
    return float(np.abs(left.astype(int) - right).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_is_farther_from_the_image(pictures: list[Pixels], name: str) -> None:
    assert len(CORRUPTIONS[name].strengths) == len(SEVERITIES)
    before = [picture.copy() for picture in pictures]
    means = [
        np.mean([distance(corrupt(one, name, severity, b"key %d" % n), one) for n, one in enumerate(pictures)])
        for severity in SEVERITIES
    ]
    assert means[0] > 0.5
    assert (np.diff(means) > 0).all()
    for picture, same in zip(pictures, before, strict=True):
        np.testing.assert_array_equal(picture, same)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_by_its_key_and_nothing_else(pictures: list[Pixels], name: str) -> None:
    first = corrupt(pictures[0], name, 3, b"a")
    for other in (1, 2):
        corrupt(pictures[other], name, 5, b"c")
    np.testing.assert_array_equal(corrupt(pictures[0], name, 3, b"a"), first)
    assert (distance(corrupt(pictures[0], name, 3, b"b"), first) > 0) == (name in RANDOM)
    assert first.shape == pictures[0].shape
    assert first.dtype == np.uint8


def test_strengths_are_what_their_units_say(pictures: list[Pixels]) -> None:
    flat = np.full((96, 96, 3), 100, dtype=np.uint8)
    noise = corrupt(flat, "gaussian-noise", 2, b"key").astype(float) - 100
    assert noise.std() == pytest.approx(20, rel=0.02)
    assert abs(noise.mean()) < 0.5
    photons = corrupt(flat, "shot-noise", 2, b"key") * (25 / 255)
    assert photons.mean() == pytest.approx(100 * 25 / 255, rel=0.01)  # Poisson's variance is its mean
    assert photons.var() == pytest.approx(100 * 25 / 255, rel=0.05)
    for name in ("blur", "motion-blur", "low-resolution", "contrast", "grey"):
        assert distance(corrupt(flat, name, 5, b"key"), flat) == 0
    white = np.zeros_like(flat)
    white[:, 48:] = 255
    edge = corrupt(white, "blur", 5, b"key")[:, :, 0].astype(float)
    rise = np.diff(edge[40])
    middle = (rise * np.arange(95)).sum() / rise.sum()
    spread = np.sqrt((rise * (np.arange(95) - middle) ** 2).sum() / rise.sum())
    assert spread == pytest.approx(0.04 * 96, rel=0.03)
    for severity, part in enumerate((0.2, 0.3, 0.4, 0.5, 0.6), 1):
        covered = (corrupt(flat, "occlusion", severity, b"key") != 100).all(2)
        assert covered.sum() == round(96 * part) ** 2
        assert covered[covered.any(1)][:, covered.any(0)].all()
    assert corrupt(flat, "darkness", 1, b"key").max() == 71  # half the light of gray level 100
    assert corrupt(flat, "over-exposure", 5, b"key").min() == 255
    gray = corrupt(pictures[0], "grey", 5, b"key")
    assert (gray == gray[:, :, :1]).all()
    assert corrupt(pictures[0], "contrast", 1, b"key").std((0, 1)) == pytest.approx(
        0.6 * pictures[0].std((0, 1)), rel=0.02
    )


KEPT = {
    "blur": [255, 255, 197, 191, 133, 127, 69, 63],
    "motion-blur": [255, 255, 198, 191, 134, 127, 70, 63],
    "gaussian-noise": [255, 255, 210, 223, 137, 90, 53, 148],
    "shot-noise": [102, 255, 204, 204, 102, 255, 51, 0],
    "jpeg": [244, 255, 210, 184, 125, 119, 68, 54],
    "low-resolution": [242, 242, 213, 182, 151, 120, 89, 76],
    "darkness": [71, 71, 51, 51, 30, 30, 10, 10],
    "over-exposure": [255, 255, 255, 255, 237, 237, 123, 123],
    "contrast": [178, 178, 165, 165, 153, 153, 140, 140],
    "occlusion": [255, 255, 128, 128, 128, 128, 63, 63],
    "grey": [182, 190, 154, 162, 127, 135, 99, 107],
}
"""Every second green of the sixth row of the image below, with severity 4."""


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_stay_as_they_were(name: str) -> None:
    """Others would make results of other versions incomparable."""
    y, x = np.mgrid[:16, :16]
    image = np.stack([16 * x + y, 255 - 16 * (x // 4 * 4), 10 * y + 60], axis=2).astype(np.uint8)
    found = corrupt(image, name, 4, b"tiny")[5, ::2, 1].tolist()
    assert found == pytest.approx(KEPT[name], abs=2 if name == "jpeg" else 0)  # versions of libjpeg differ
