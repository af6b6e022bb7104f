"""Images of all kinds in one call: each has a row, what cannot be used is named, and confidence is as calibrated."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from hpcgender.checkpoint_file import newest_checkpoint
from hpcgender.commands.predict import PredictConfig
from hpcgender.evaluate.predictions import read_predictions
from hpcgender.evaluate.results import read_evaluation
from hpcgender.predict.command import predict
from hpcgender.predict.images import Listing, Named, read
from hpcgender.predict.model import load
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import UserError
from tests.hpcgender.evaluate.evaluating import evaluated, save_skilled_model
from tests.hpcgender.evaluate.examples import save_model


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run with a network that is often right, and its evaluation on val."""
    run_dir = tmp_path_factory.mktemp("work") / "runs" / "both"
    best = save_skilled_model(run_dir / "checkpoints" / "best.pt", shards)
    options = {"split": "val", "temperature_from": "train", "backend": "torchvision"}
    found = evaluated(shards, best, run_dir / "evaluations" / "shards-val", **options).gender
    assert found
    assert found.temperature
    (run_dir / "config.json").write_text('{"model": "se_resnet18"}')
    return run_dir


Predict = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def predicted(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Predicts images in this process with that run: the exit code, and the rows of the JSON list."""

    def predicted(*images: object, **options: Any) -> tuple[int, list[dict[str, Any]]]:
        given = {"checkpoint": run_dir, "backend": "torchvision", "json": True, **options}
        config = PredictConfig(images=tuple(map(str, images)), **given)
        config.check()
        code = predict(config)
        return code, json.loads(capsys.readouterr().out)

    return predicted


def test_predictions_are_those_of_the_evaluation(run_dir: Path, faces: Path, predicted: Predict) -> None:
    directory = run_dir / "evaluations" / "shards-val"
    gender = read_evaluation(directory).gender
    assert gender
    assert gender.temperature
    expected = read_predictions(directory)
    code, rows = predicted(*(faces / f"{key}.JPG" for key in expected.key), batch_size=16)
    assert code == 0
    np.testing.assert_allclose([row["logit"] for row in rows], expected.logit, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([row["age"] for row in rows], expected.age_prediction, atol=0.06)
    assert [row["label"] == "male" for row in rows] == (expected.prediction == 1).tolist()
    calibrated = 1 / (1 + np.exp(-expected.logit.astype(np.float64) / gender.temperature.value))
    np.testing.assert_allclose([row["probability"] for row in rows], calibrated, atol=1e-4)
    np.testing.assert_allclose(
        [row["confidence_percent"] for row in rows], 100 * np.maximum(calibrated, 1 - calibrated), atol=0.02
    )
    # At the threshold of equal error as many are wrong as it says.
    _, rows = predicted(*(faces / f"{key}.JPG" for key in expected.key), threshold="equal-error")
    right = np.mean(
        [row["label"] == ("female", "male")[label] for row, label in zip(rows, expected.label, strict=True)]
    )
    assert gender.equal_error
    assert right == pytest.approx(gender.equal_error.accuracy)
    _, rows = predicted(*(faces / f"{key}.JPG" for key in expected.key), threshold="fpr=0.1", evaluation="none")
    wrong = [row["label"] == "male" for row, label in zip(rows, expected.label, strict=True) if label == 0]
    assert np.mean(wrong) <= 0.1
    np.testing.assert_allclose([row["probability"] for row in rows], expected.probability, atol=1e-4)


def test_files_directories_patterns_and_what_cannot_be_used(
    faces: Path, predicted: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = sorted(faces.iterdir())[:3]
    inner = tmp_path / "all" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "all" / "empty").mkdir()
    shutil.copy(first, inner / "a.jpg")
    shutil.copy(second, tmp_path / "all" / "b.jpg")
    (tmp_path / "all" / "notes.txt").write_text("not an image")
    (tmp_path / "all" / "half.jpg").write_bytes(third.read_bytes()[:700])
    names = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert names == ["b.jpg", "empty", "half.jpg", "inner", "notes.txt"]
    table, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    # A pattern, and the directory with all below it.
    code, rows = predicted(tmp_path / "all" / "*", tmp_path / "all", csv=table, parquet=parquet)
    assert code == 1
    found = [(Path(row["image"]).name, row.get("error", "")[:30]) for row in rows]
    assert found == [
        ("b.jpg", ""),
        ("empty", "there is no image in this dire"),
        ("half.jpg", "it does not decode: image file"),
        ("a.jpg", ""),
        ("notes.txt", "it is not an image"),
        ("b.jpg", ""),
        ("half.jpg", "it does not decode: image file"),
        ("a.jpg", ""),
    ]
    assert rows[0]["logit"] == pytest.approx(rows[5]["logit"], rel=1e-5)
    with table.open(newline="") as file:
        of_csv = list(csv.DictReader(file))
    assert [{name: value for name, value in row.items() if value} for row in of_csv] == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]
    of_parquet = pyarrow.parquet.read_table(parquet).to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in of_parquet] == rows

    assert predicted(tmp_path / "no*", tmp_path / "gone.jpg")[0] == 2
    with pytest.raises(UserError, match=r"--threshold 1: give a probability such as 0\.6, equal-error, or a rate"):
        predicted(first, threshold="1")


def test_a_name_that_is_no_text_is_escaped(faces: Path, predicted: Predict, tmp_path: Path) -> None:
    odd = tmp_path / "a\udcff.jpg"  # a byte that UTF-8 does not have
    shutil.copy(sorted(faces.iterdir())[0], odd)
    table, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    code, (row,) = predicted(odd, csv=table, parquet=parquet)
    assert code == 0
    assert row["image"] == str(odd)  # which JSON can say
    with table.open(newline="") as file:
        (of_csv,) = csv.DictReader(file)
    (of_parquet,) = pyarrow.parquet.read_table(parquet).to_pylist()
    assert of_csv["image"] == of_parquet["image"] == f"{tmp_path}/a\\udcff.jpg"


def test_names_and_images_from_stdin(faces: Path) -> None:
    first, second = sorted(faces.iterdir())[:2]
    by_lines = Listing(["-"], io.BytesIO(f"{first}\n\n{second}\n".encode()))
    assert [image.content for image in by_lines.images] == [first, second]
    by_zeros = Listing(["-"], io.BytesIO(os.fsencode(first) + b"\0-\0"))
    assert [image.content for image in by_zeros.images] == [first, Path("-")]
    assert [image.content for image in Listing(["-"], io.BytesIO(first.read_bytes())).images] == [first.read_bytes()]


def test_lines_of_stdin_may_end_in_a_carriage_return(faces: Path) -> None:
    first, second = sorted(faces.iterdir())[:2]
    given = io.BytesIO(f"{first}\r\n{second}\r\n".encode())
    assert [image.content for image in Listing(["-"], given).images] == [first, second]


def test_an_empty_stdin_is_said(predicted: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert predicted("-") == (
        2,
        [{"image": "stdin", "error": "it is empty: give names of files, or an image"}],
    )


def test_a_path_that_cannot_be_read_does_not_end_the_others(run_dir: Path, faces: Path, tmp_path: Path) -> None:
    first = sorted(faces.iterdir())[0]
    for name in ("all/a.jpg", "all/closed/b.jpg", "all/deep/c.jpg", "hidden/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, tmp_path / name)
    (tmp_path / "all" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "all" / "closed").chmod(0)
    (tmp_path / "hidden").chmod(0)
    long = "x" * 300
    powers = "-dac_override,-dac_read_search"  # of root, who may read everything else
    root = ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"] if os.geteuid() == 0 else []
    program = [sys.executable, "-m", "hpcgender", "predict", "--checkpoint", str(run_dir), "--backend", "torchvision"]
    done = subprocess.run(
        [*root, *program, "--json", "all", f"{long}.jpg", f"{long}*", "hidden/d.jpg", "-"],
        cwd=tmp_path,
        input=f"{long}\nall/a.jpg\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    too_long, denied = "it cannot be read: File name too long", "it cannot be read: Permission denied"
    assert [(row["image"], row.get("error", "")) for row in json.loads(done.stdout)] == [
        ("all/a.jpg", ""),
        ("all/deep/c.jpg", ""),
        ("all/closed", denied),
        ("all/gone.jpg", "it cannot be read: a dangling link"),
        (f"{long}.jpg", too_long),
        (f"{long}*", "no file has such a name"),
        ("hidden/d.jpg", denied),
        (long, too_long),
        ("all/a.jpg", ""),
    ]
    assert "6 of 9 images cannot be used" in done.stderr


def test_a_damaged_alignment_does_not_end_the_others(faces: Path, tmp_path: Path) -> None:
    recipe = Recipe(template="arcface", size=112, margin=0.0, faces="largest", landmarks="file")
    (tmp_path / "images").mkdir()
    shutil.copy(sorted(faces.iterdir())[0], tmp_path / "images" / "a.jpg")
    (tmp_path / "alignment.json").write_text("{")
    found = read(Named("a", tmp_path / "images" / "a.jpg"), recipe)
    assert found.encoded is None
    assert "alignment.json" in found.error


def test_heat_maps_are_drawn_over_the_images(faces: Path, predicted: Predict, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = sorted(faces.iterdir())[:2]
    same = shutil.copy(second, tmp_path / "other" / first.name)
    code, rows = predicted(first, same, tmp_path / "gone.jpg", cam=tmp_path / "maps")
    assert code == 1
    pictures = [Path(row["heat_map"]) for row in rows if "heat_map" in row]
    assert [path.name for path in pictures] == [f"{first.stem}.jpg", f"{first.stem}+1.jpg"]
    assert sorted(pictures) == sorted((tmp_path / "maps").iterdir())
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (224, 224)
            assert np.ptp(np.asarray(picture).astype(int), axis=2).max() > 30  # it is in colour


def test_images_in_memory_are_predicted_as_their_files(run_dir: Path, faces: Path) -> None:
    model = load(run_dir, backend="torchvision", evaluation="none")
    path = sorted(faces.iterdir())[0]
    with Image.open(path) as image:
        image.load()
        found = model.predict([str(path), path, path.read_bytes(), image, np.asarray(image)], heat_maps=True)
    assert [one.image for one in found] == [str(path), str(path), "2", "3", "4"]
    logits = [one.logit for one in found]
    assert logits == pytest.approx([logits[0]] * 5, rel=1e-4)
    assert found[0].heat_map is not None
    assert found[0].face is not None
    assert (found[0].heat_map.shape, found[0].face.shape) == ((2, 2), (32, 32, 3))
    (wrong, empty) = model.predict([np.zeros((4, 4, 3), np.float32), np.zeros((0, 5, 3), np.uint8)])
    assert empty.error == "it does not decode: cannot write empty image"
    assert wrong.error == "it is an array (4, 4, 3) of float32, not of uint8 with the shape (height, width, 3)"


def test_one_image_is_no_list(run_dir: Path, faces: Path) -> None:
    model = load(run_dir, backend="torchvision")
    path = sorted(faces.iterdir())[0]
    pixels = np.zeros((4, 5, 3), np.uint8)
    for one in (str(path), path, path.read_bytes(), Image.fromarray(pixels), pixels, pixels[..., 0], torch.zeros(4, 5)):
        with pytest.raises(UserError, match=r"predict takes a list of images: give a single one as \[image\]"):
            model.predict(one)  # type: ignore[arg-type]
    assert len(model.predict(np.zeros((2, 4, 5, 3), np.uint8))) == 2


def test_what_is_no_image_in_memory_is_an_entry(
    run_dir: Path, faces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(sorted(faces.iterdir())[0], tmp_path / "a.jpg")
    given: list[Any] = [None, torch.zeros(4, 5, 3), "a\0b", "~/a.jpg", "x" * 300]
    found = load(run_dir, backend="torchvision").predict(given)
    kinds = "not a path, bytes, a Pillow image, or an array"
    assert [(one.image, one.error) for one in found] == [
        ("0", f"it is NoneType, {kinds}"),
        ("1", f"it is Tensor, {kinds}"),
        ("a\0b", "its name has a zero byte, which no file's has"),
        ("~/a.jpg", ""),
        ("x" * 300, "it cannot be read: File name too long"),
    ]


def test_values_of_load_are_those_of_the_options(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("crop", "nothing"), ("backend", "pillow"), ("precision", "fp8")):
        with pytest.raises(UserError, match=f"unknown {name} '{value}': "):
            load(run_dir, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch_size 0 must be positive"):
        load(run_dir, batch_size=0)
    monkeypatch.setenv("HOME", str(run_dir.parent))
    model = load("~/both", backend="torchvision", threshold=0.6, evaluation=Path("~/both/evaluations/shards-val"))
    assert model.decision.probability_threshold == pytest.approx(0.6)


def test_the_upper_8_of_16_bits_are_seen(run_dir: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    fine = Image.fromarray(gray.astype(np.uint16) << 8 | 255)
    deep, shallow = load(run_dir, backend="torchvision").predict([fine, gray])
    assert fine.mode == "I;16"
    assert deep.logit == shallow.logit


def test_a_pattern_for_all_below_a_directory_lists_each_file_once(faces: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "inner/b.jpg", "inner/deeper/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(faces.iterdir()), tmp_path / name)
    for pattern in ("**", "**/*", "**/*.jpg"):
        listed = Listing([f"{tmp_path}/{pattern}"], io.BytesIO()).images
        assert sorted(Path(image.name).name for image in listed) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_run_by_its_name_and_by_its_architecture(
    run_dir: Path, faces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_dir.parents[1])
    best = Path("runs", "both", "checkpoints", "best.pt")
    assert PredictConfig(images=("x",), checkpoint=Path("both")).checkpoint_path == best
    assert newest_checkpoint(Path("runs"), "se_resnet18") == best
    shutil.copytree(run_dir, tmp_path / "runs" / "older")
    shutil.copytree(run_dir, tmp_path / "runs" / "newer")
    os.utime(tmp_path / "runs" / "older" / "checkpoints" / "best.pt", (1, 1))
    monkeypatch.chdir(tmp_path)
    config = PredictConfig(images=("x",), model="se_resnet18")
    config.check()
    assert config.checkpoint_path.parts[1] == "newer"
    asked = PredictConfig(images=(str(next(faces.iterdir())),), model="se_resnet18", backend="torchvision")
    assert predict(asked) == 0
    assert capsys.readouterr().err.startswith("by runs/newer/checkpoints/best.pt: images are seen as they are")
    with pytest.raises(UserError, match=r"no run of vgg16 in runs has a checkpoint \(there are se_resnet18\)"):
        PredictConfig(images=("x",), model="vgg16").check()
    with pytest.raises(UserError, match="give either --checkpoint or"):
        PredictConfig(images=("x",)).check()


def test_an_evaluation_of_another_checkpoint_says_nothing(run_dir: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "checkpoints" / "best.pt")
    of_both = str(run_dir / "evaluations" / "shards-val")
    with pytest.raises(UserError, match="evaluated another checkpoint"):
        load(other, evaluation=of_both)
    with pytest.raises(UserError, match=r"--threshold fpr=0\.01 is taken from an evaluation"):
        load(other, threshold="fpr=0.01")
    assert load(other, backend="torchvision").decision.words == "confidence is not calibrated"
    assert load(run_dir, backend="torchvision").decision.calibrated_by.endswith("shards-val")
