"""Crops: every landmark comes to its place in the template, at any size, without aliasing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shard_tools.align.crop import align_encoded
from shard_tools.align.detector import Pixels
from shard_tools.align.recipe import Recipe, Rule, Template
from shard_tools.align.warp import ARCFACE, Points
from shard_tools.images import ImageError
from tests.shard_tools.align.photos import photo, place, seen

ARC = Recipe(template="arcface", size=112, margin=0.0, faces="largest", landmarks="file")


def align(pixels: Pixels, recipe: Recipe, faces: Sequence[Points]) -> Pixels:
    """The crop's pixels, encoded without loss in between."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    crop = align_encoded(encoded.getvalue(), recipe, faces, suffix=".png")
    return np.asarray(Image.open(io.BytesIO(crop.encoded)))


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (2.3, 25), (0.6, -40)])
@pytest.mark.parametrize(("size", "margin"), [(112, 0.0), (224, 0.0), (160, 0.3), (128, -0.1)])
def test_eyes_nose_and_mouth_come_to_their_places(scale: float, degrees: float, size: int, margin: float) -> None:
    face = place(scale, degrees, (180, 150))
    crop = align(np.asarray(photo(face)), replace(ARC, size=size, margin=margin), [face])
    assert crop.shape == (size, size, 3)
    expected = (ARCFACE + 0.5 + 112 * margin) * size / (112 * (1 + 2 * margin)) - 0.5
    assert np.abs(seen(crop) - expected).max() < 1.2


@pytest.mark.parametrize("template", ["arcface", "square"])
def test_eyes_alone_give_the_same_crop_of_a_face_like_the_template(template: Template) -> None:
    face = place(1.7, 10, (180, 150))
    recipe = replace(ARC, template=template)
    five, eyes = (align(np.asarray(photo(face)), recipe, [points]).astype(int) for points in (face, face[:2]))
    assert np.abs(five - eyes).mean() < 0.5


def test_a_square_is_not_turned_and_has_its_margin() -> None:
    face = place(1.0, 30, (200, 150))
    crop = align(np.asarray(photo(face)), replace(ARC, template="square", margin=0.25, size=168), [face])
    assert (
        np.abs(seen(crop) - (face - 200 + 84 + [0, 50])).max() < 1.5
    )  # of its own scale, and its middle in the middle


def test_a_crop_smaller_than_the_face_has_no_aliasing() -> None:
    stripes = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (1000, 1000))
    crop = align(np.dstack([stripes] * 3), ARC, [place(8.37, 7, (1000, 1000))])
    assert np.abs(crop.astype(int) - 127).max() < 12


@pytest.mark.parametrize(("rule", "chosen"), [("largest", 0), ("central", 1)])
def test_the_rule_chooses_one_of_several_faces(rule: Rule, chosen: int) -> None:
    faces = [place(1.2, 0, (80, 90)), place(0.7, 0, (200, 150))]
    pixels = np.asarray(photo(*faces))
    crop = align(pixels, replace(ARC, faces=rule), faces)
    assert (crop == align(pixels, ARC, [faces[chosen]])).all()


def test_several_faces_or_none_can_be_refused() -> None:
    faces = [place(1.2, 0, (80, 90)), place(0.7, 0, (200, 150))]
    with pytest.raises(ImageError, match="2 faces were found in it"):
        align(np.asarray(photo(*faces)), replace(ARC, faces="refuse"), faces)
    with pytest.raises(ImageError, match="no face was found in it"):
        align(np.asarray(photo(*faces)), ARC, [])


def test_landmarks_far_outside_of_the_image_are_refused_and_not_scaled_to() -> None:
    """The draft of such a crop would have taken all memory."""
    with pytest.raises(ImageError, match="landmarks of a face lie far outside of it"):
        align(np.asarray(photo()), ARC, [np.array([[0.0, 0.0], [1e6, 1e6]])])


def test_an_encoded_image_is_turned_upright_first_and_gray_stays_gray() -> None:
    face = place(1.4, 0, (180, 150))
    upright = photo(face)
    exif = Image.Exif()
    exif[0x112] = 6
    turned = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    plain = io.BytesIO()
    upright.save(plain, "PNG")
    assert align_encoded(turned.getvalue(), ARC, [face]).encoded == align_encoded(plain.getvalue(), ARC, [face]).encoded
    gray = io.BytesIO()
    upright.convert("L").save(gray, "PNG")
    with Image.open(io.BytesIO(align_encoded(gray.getvalue(), ARC, [face], suffix=".png").encoded)) as crop:
        assert (crop.mode, crop.format, crop.size) == ("L", "PNG", (112, 112))
