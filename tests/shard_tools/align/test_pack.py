"""Packing crops: `pack --align` does what `shard-tools align` does, and the manifest has the recipe of either."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from shard_tools.align.recipe import Recipe
from shard_tools.commands import SHARD_TOOLS
from shard_tools.inspect.faces import read_image
from shard_tools.manifest import Manifest, read_manifest
from tests.shard_tools.align.photos import photo, photos

ARC = Recipe(template="arcface", size=96, margin=0.1, faces="largest", landmarks="file")
NAMES = ("--female", "a", "--male", "b", "--val", 0, "--test", 0, "--workers", 1)
CROP = ("--crop-size", 96, "--crop-margin", 0.1)


def run(*words: object) -> int:
    return SHARD_TOOLS.run([*map(str, words)])


def images_of(manifest: Manifest) -> dict[bytes, bytes]:
    return {row["key"]: read_image(manifest, "train", row) for row in manifest.index("train")}


def test_pack_align_packs_the_crops_that_align_makes(tmp_path: Path, capsys: Any) -> None:
    images, listed = photos(tmp_path, 8), tmp_path / "landmarks.csv"
    for path in images.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))  # whose crop is a JPEG, too: names of lists need not have the suffix
    photo().save(images / "b" / "faceless.png")
    assert run("align", "--images", images, "--out", tmp_path / "crops", "--landmarks", listed, *CROP) == 0
    crops = tmp_path / "crops" / "images"
    assert run("pack", "folders", "--images", crops, "--out", tmp_path / "two", *NAMES) == 0
    aligned = ("--align", "--landmarks", listed, *CROP)
    assert run("pack", "folders", "--images", images, "--out", tmp_path / "one", *aligned, *NAMES) == 0
    one, two = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    assert one.crop == two.crop == ARC
    assert images_of(one) == images_of(two)
    with (tmp_path / "one" / "quarantine" / "quarantine.csv").open() as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["it has no line in landmarks.csv"]
    capsys.readouterr()
    assert run("inspect", tmp_path / "one") == 0
    assert "arcface crops with margin 0.1 of 96 pixels, landmarks of a file" in " ".join(
        capsys.readouterr().out.split()
    )


def test_crops_made_elsewhere_are_stated_and_packed_as_they_are(tmp_path: Path) -> None:
    images = photos(tmp_path, 4)
    assert run("pack", "folders", "--images", images, "--out", tmp_path / "stated", "--aligned", *NAMES) == 0
    assert run("pack", "folders", "--images", images, "--out", tmp_path / "plain", *NAMES) == 0
    stated, plain = read_manifest(tmp_path / "stated"), read_manifest(tmp_path / "plain")
    assert images_of(stated) == images_of(plain)
    assert stated.crop == Recipe(template="arcface", size=112, margin=0.0, faces="largest", landmarks="")
    assert plain.crop is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop-size", 96), "--crop-size is for --align: give that, too"),
        (("--align", "--aligned"), "give one of them"),
        (("--aligned", "--landmarks", "landmarks.csv"), "--landmarks is for --align, which crops by them"),
        (("--align", "--landmarks", "landmarks.csv", "--resize", 64), "leave --resize out"),
        (("--align", "--landmarks", "missing.csv"), "no table missing.csv"),
        (
            ("--align", "--landmarks", "labels.csv"),
            "labels.csv has no column of the eyes: name columns image, ",
        ),
        (("--align", "--crop-margin", 9), "--crop-margin 9 is not from -0.15 to 2"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(
    options: tuple[object, ...], message: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos(tmp_path, 2)
    (tmp_path / "labels.csv").write_text("image,gender\na/0.png,1\nb/1.jpg,0\n")
    monkeypatch.chdir(tmp_path)
    assert run("pack", "folders", "--images", images, "--out", tmp_path / "out", *options, *NAMES) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_crops_are_not_cropped_again(tmp_path: Path, capsys: Any) -> None:
    listed = ("--landmarks", tmp_path / "landmarks.csv")
    assert run("align", "--images", photos(tmp_path, 2), "--out", tmp_path / "crops", *listed) == 0
    crops = tmp_path / "crops" / "images"
    assert run("pack", "folders", "--images", crops, "--out", tmp_path / "out", "--align", *listed, *NAMES) == 2
    assert "was made by shard-tools align, which noted how: leave --align out" in capsys.readouterr().err


def test_other_landmarks_do_not_resume_a_pack(tmp_path: Path, capsys: Any) -> None:
    images, listed = photos(tmp_path, 4), tmp_path / "landmarks.csv"
    words = ("pack", "folders", "--images", images, "--out", tmp_path / "out", "--align", "--landmarks", listed, *NAMES)
    assert run(*words, "--task", "1/2") == 0
    text = listed.read_text()
    listed.write_text(text.replace("1", "2"))
    assert run(*words, "--task", "2/2") == 2
    assert "holds an unfinished pack with another detector or content of --landmarks: " in capsys.readouterr().err
    listed.write_text(text)
    assert run(*words, "--task", "2/2") == 0
