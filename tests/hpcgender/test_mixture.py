"""Training on several data sets: killed and resumed, refused where it cannot be right, and told in all results."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.checkpoint import read_checkpoint
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.matrix import MatrixConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.commands.show_batch import ShowBatchConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import read_evaluation
from hpcgender.matrix.command import matrix
from hpcgender.report.page import report
from hpcgender.show_batch import show_batch
from hpcgender.train.loop import train
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest, write_manifest
from tests.conftest import Run
from tests.hpcgender.test_resume import OPTIONS, assert_equal, newest, result, run_until

SMALL: dict[str, Any] = {"image_size": 32, "batch_size": 16, "lr": 0.01, "epochs": 1, "backend": "torchvision"}


def options(data: str, tmp_path: Path, **more: Any) -> TrainConfig:
    of_both = {"data": Path(data), "runs": tmp_path / "runs", "name": "mixed", "model": "compact"}
    return TrainConfig(**{**SMALL, **of_both, **more})


def refused(config: TrainConfig) -> str:
    """The line with which the options are refused."""
    with pytest.raises(UserError) as error:
        config.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(data: Path, out: Path, split: str, **columns: Any) -> Path:
    """A copy of a data set, another by its manifest, with these columns in the first rows of a split's index."""
    shutil.copytree(data, out)
    (out / "manifest.json").write_text((out / "manifest.json").read_text() + "\n")
    path = out / split / "index.npy"
    index = np.load(path)
    for name, values in columns.items():
        index[name][: len(values)] = values
    np.save(path, index)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_and_stopped_a_mixture_ends_with_the_same_bits(
    shards: Path, others: Path, tmp_path: Path, world_size: int
) -> None:
    launch = ("hpcgender.launch", "--nodes", world_size, "--") if world_size > 1 else ("hpcgender",)
    data = ("--data", f"{shards}=2", "--data", f"{others}=1", "--epochs", 3)
    command = [sys.executable, "-m", *map(str, (*launch, "train", *OPTIONS, *data))]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    code, output = run_until(command, whole, None, signal.SIGKILL)
    assert code == 0, output
    for how, step in ((signal.SIGKILL, 15), (signal.SIGTERM, 60)):  # in the first epoch of 42 steps, and in the second
        code, output = run_until(command, broken, step, how)
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 99), output
        assert newest(broken) >= step
    code, output = run_until(command, broken, None, signal.SIGKILL)
    assert code == 0, output
    assert "resuming runs/train" in output
    (expected, records), (content, own_records) = result(whole), result(broken)
    for of_run in (expected, content):
        del of_run["config"], of_run["seconds"]
    assert_equal(content, expected)
    assert own_records == records
    assert [record["train"]["images"] for record in records] == [42 * 8] * 3


def test_a_mixture_is_validated_on_all_of_its_data_sets(
    shards: Path, others: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its checkpoint is one that evaluate, cam, predict and matrix take, with each of them."""
    config = options(f"{shards}=2,{others}=1", tmp_path, model="resnet18", stem="small")
    assert train(config) == 0
    printed = capsys.readouterr().out
    counts = {path: read_manifest(path).splits for path in (shards, others)}
    assert f"{sum(of['train'].samples for of in counts.values())} images" in printed
    assert "shards: weight 2, 22" in printed
    assert "others: weight 1, 11" in printed
    (record,) = map(json.loads, (config.run_dir / "metrics.jsonl").read_text().splitlines())
    assert set(record["val_of"]) == {"shards", "others"}
    images = {name: of["images"] for name, of in record["val_of"].items()}
    assert images == {path.name: of["val"].samples for path, of in counts.items()}
    assert record["val"]["images"] == sum(images.values())
    right = sum(of["accuracy"] * of["images"] for of in record["val_of"].values())
    assert record["val"]["accuracy"] == pytest.approx(right / record["val"]["images"])
    accuracy = record["val_of"]["others"]["accuracy"]
    assert f"others loss {record['val_of']['others']['loss']:.4f} acc {accuracy:.2%}" in printed

    best = config.run_dir / "checkpoints" / "best.pt"
    content = read_checkpoint(best)
    assert content["manifest"] == f"{read_manifest(shards).sha256}=2,{read_manifest(others).sha256}=1"
    assert content["leaks"] == []
    for data, split in ((others, "val"), (others, "test"), (others, "train"), (shards, "test")):
        evaluate(EvaluateConfig(checkpoint=best, data=data, split=split, backend="torchvision"))
        found = read_evaluation(config.run_dir / "evaluations" / f"{data.name}-{split}")
        trained = counts[data]["train"].samples if split == "train" else 0
        assert (found.data.trained_on.images, found.data.trained_on.why) == (trained, "")
        if split == "val":  # the images and the model of the training's own validation
            assert found.gender
            assert found.gender.accuracy.value == pytest.approx(accuracy)
    capsys.readouterr()
    matrix(MatrixConfig(evaluated=(config.run_dir,), json=True))
    cells = {cell["test_set"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert set(cells) == {"others, test", "others, train", "shards, test"}
    assert {name: bool(cell["trained_on"]) for name, cell in cells.items()} == {
        "others, test": False,
        "others, train": True,
        "shards, test": False,
    }
    assert all(cell["validated"] for cell in cells.values())

    report(ReportConfig(inputs=(config.run_dir,), out=tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "one of the data sets it was trained on; this split was held out" in page
    assert str(read_manifest(shards).sha256) in page
    CamConfig(checkpoint=best, data=others).check()
    shown = run("hpcgender", "show-batch", "--run", config.run_dir, "--step", 3, "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    files = {image["file"].partition("/")[0] for image in json.loads(shown.stdout)}
    assert files == {"shards", "others"}
    predicted = run("hpcgender", "predict", "--checkpoint", best, tmp_path / "batch.png", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr


def test_a_resumed_mixture_has_the_same_data_and_weights(shards: Path, others: Path, tmp_path: Path) -> None:
    assert train(options(f"{shards}=2,{others}=1", tmp_path, checkpoint_minutes=0.0)) == 0
    for data in (f"{shards}=1,{others}=1", f"{others}=1,{shards}=2", str(shards)):
        assert "was trained on other data" in refused(options(data, tmp_path, resume=True, epochs=2))
    moved = Path(shutil.copytree(others, tmp_path / "moved"))
    assert train(options(f"{shards}=4,{moved}=2", tmp_path, resume=True, epochs=2)) == 0


COPIES = {"content": [5, 6], "appearance": [7, 8]}


@pytest.mark.parametrize(("mine", "theirs"), [("train", "test"), ("train", "val"), ("test", "train"), ("val", "test")])
def test_copies_in_another_split_are_refused(
    shards: Path, others: Path, tmp_path: Path, mine: str, theirs: str
) -> None:
    one, other = changed(shards, tmp_path / "one", mine, **COPIES), changed(others, tmp_path / "two", theirs, **COPIES)
    line = refused(options(f"{one}=1,{other}=1", tmp_path))
    keys = (read_manifest(one).index(mine)["key"][0].decode(), read_manifest(other).index(theirs)["key"][0].decode())
    assert line.startswith(
        f"{one / mine} and {other / theirs}: 2 byte-identical images are in both, as 2 samples and 2 samples: "
        f"{keys[0]} and {keys[1]}, "
    )
    assert "(and 1 more such finding)" in line  # that they look the same
    assert "--allow-leaks" in line


def test_copies_in_the_same_split_are_no_leak(shards: Path, others: Path, tmp_path: Path) -> None:
    one, other = (changed(path, tmp_path / path.name, "train", **COPIES) for path in (shards, others))
    options(f"{one}=1,{other}=1", tmp_path).check()


def test_subjects_of_one_numbering_in_another_split_are_refused(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = read_manifest(shards).index("test")["subject"][:3]
    other = changed(shards, tmp_path / "other", "train")
    assert read_manifest(other).numbering == "morph"
    for number, split in enumerate(read_manifest(other).splits):  # other images of other people
        index = np.load(other / split / "index.npy")
        index["content"] = index["appearance"] = np.arange(len(index)) + 1000 * (number + 1)
        index["subject"] = b""
        if split == "train":
            index["subject"][: len(subjects)] = subjects
        np.save(other / split / "index.npy", index)
    line = refused(options(f"{shards}=1,{other}=1", tmp_path))
    people = len(set(subjects.tolist()))
    assert line.startswith(f"{shards / 'test'} and {other / 'train'}: {people} subjects are in both, as ")

    # Of a table, equal ids may be of different people: that is no leak, and the log says that they were not compared.
    write_manifest(replace(read_manifest(other), source="table", numbering=""))
    mixed = options(f"{shards}=1,{other}=1", tmp_path)
    mixed.check()
    assert train(mixed) == 0
    says = f"subjects were not compared: {shards} is from morph, {other} is from table, and it is not known"
    assert capsys.readouterr().out.count(says) == 1


def test_allowed_leaks_are_said_by_the_log_the_checkpoint_and_all_results(
    shards: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = changed(shards, tmp_path / "one", "train", content=[5])
    two = changed(others, tmp_path / "two", "test", content=[5])
    config = options(f"{one}=1,{two}=1", tmp_path, allow_leaks=True)
    assert train(config) == 0
    line = f"{one / 'train'} and {two / 'test'}: 1 byte-identical image is in both, as 1 sample and 1 sample: "
    printed = capsys.readouterr().out
    assert f"WARNING: --allow-leaks: {line}" in printed
    assert train(replace(config, resume=True, epochs=2, allow_leaks=False)) == 0  # it was so from the start
    assert f"WARNING: --allow-leaks: {line}" in capsys.readouterr().out
    best = config.run_dir / "checkpoints" / "best.pt"
    (noted,) = read_checkpoint(config.run_dir / "checkpoints" / "last.pt")["leaks"]
    assert noted.startswith(line)
    evaluate(EvaluateConfig(checkpoint=best, data=two, backend="torchvision"))
    said = f"the model was trained with --allow-leaks: {noted}"
    assert said in capsys.readouterr().out
    found = read_evaluation(config.run_dir / "evaluations" / "two-test")
    assert found.checkpoint.leaks == (noted,)
    assert found.data.trained_on.images == 1
    report(ReportConfig(inputs=(config.run_dir,), out=tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().count(said) >= 2  # of the run, and of its evaluation


def test_a_data_set_without_ages_counts_for_gender_alone(
    shards: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = read_manifest(others).splits["train"].samples
    ageless = changed(others, tmp_path / "ageless", "train", age=np.full(count, -1.0))
    config = options(f"{shards}=1,{ageless}=1", tmp_path, tasks=("gender", "age"))
    assert train(config) == 0
    assert "ageless has no ages: its images count for gender alone" in capsys.readouterr().out
    (record,) = map(json.loads, (config.run_dir / "metrics.jsonl").read_text().splitlines())
    assert 0.4 < record["train"]["age_images"] / record["train"]["images"] < 0.6
    index = np.load(ageless / "val" / "index.npy")
    index["age"] = -1
    np.save(ageless / "val" / "index.npy", index)
    options(f"{shards}=1,{ageless}=1", tmp_path, tasks=("age",), name="b").check()
    assert "has no image of known age" in refused(options(str(ageless), tmp_path, tasks=("age",), name="b"))


def test_where_copies_cannot_be_seen_the_log_says_so(
    shards: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = read_manifest(others).splits["train"].samples
    unseen = changed(others, tmp_path / "unseen", "train", appearance=np.zeros(count))
    assert train(options(f"{shards}=1,{unseen}=1", tmp_path)) == 0
    printed = capsys.readouterr().out
    assert printed.count("was packed without looking at its images") == 1
    assert "unseen was packed without looking at its images" in printed
    batch = ShowBatchConfig(run=tmp_path / "runs" / "mixed", data=unseen, split="val", out=tmp_path / "val.png")
    show_batch(batch)
    assert "sheet: " in capsys.readouterr().out
    third = changed(unseen, tmp_path / "third", "train", age=[1])
    with pytest.raises(UserError, match="was trained on another data set than"):
        show_batch(replace(batch, data=third))


def test_a_data_set_may_have_no_validation_images(shards: Path, others: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(others, tmp_path / "alone"))
    manifest = read_manifest(alone)
    write_manifest(replace(manifest, splits={"train": manifest.splits["train"]}))
    config = options(f"{shards}=1,{alone}=1", tmp_path)
    assert train(config) == 0
    (record,) = map(json.loads, (config.run_dir / "metrics.jsonl").read_text().splitlines())
    assert record["val"]["images"] == read_manifest(shards).splits["val"].samples
    assert "val_of" not in record
    again = Path(shutil.copytree(alone, tmp_path / "again"))
    (again / "manifest.json").write_text((again / "manifest.json").read_text() + "\n")
    assert "has no validation images" in refused(options(f"{again}=1,{alone}=1", tmp_path, name="b"))


def test_images_that_were_cropped_otherwise_are_warned_of(
    shards: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(template="square", size=48, margin=0.2, faces="largest", landmarks="")
    cropped = [Path(shutil.copytree(path, tmp_path / path.name)) for path in (shards, others)]
    write_manifest(replace(read_manifest(cropped[0]), crop=recipe))
    assert train(options(f"{cropped[0]}=1,{cropped[1]}=1", tmp_path)) == 0
    assert "has images of which no crop is known: the model sees faces in several frames" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "runs" / "mixed" / "checkpoints" / "last.pt")["crop"] is None
    write_manifest(replace(read_manifest(cropped[1]), crop=recipe))
    assert train(options(f"{cropped[0]}=1,{cropped[1]}=1", tmp_path, name="same")) == 0
    assert "several frames" not in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "runs" / "same" / "checkpoints" / "last.pt")["crop"]["margin"] == 0.2


def test_other_classes_are_refused(shards: Path, others: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(others, tmp_path / "other"))
    write_manifest(replace(read_manifest(other), classes=("male", "female")))
    line = refused(options(f"{shards}=1,{other}=1", tmp_path))
    assert line.startswith(f"{other} has the classes male, female, and {shards} female, male: pack them")


def test_one_command_line_for_all(shards: Path, others: Path, tmp_path: Path, run: Run) -> None:
    words = ("train", "--data", f"{shards}=2", "--data", f"{others}=1", "--model", "compact", "--image-size", 32)
    printed = run("hpcgender", *words, "--print-config", cwd=tmp_path)
    assert f'data = "{shards}=2,{others}=1"' in printed.stdout
    (tmp_path / "mine.toml").write_text(printed.stdout)
    more = ("--batch-size", 16, "--epochs", 1, "--backend", "torchvision", "--augment", "none")
    done = run("hpcgender", "train", "--config", "mine.toml", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "others: weight 1" in done.stdout
    again = run("hpcgender", "train", "--name", "train", "--resume", "--epochs", 2, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    weights = torch.load(tmp_path / "runs" / "train" / "checkpoints" / "last.pt", weights_only=True)
    assert weights["config"]["data"] == f"{shards}=2,{others}=1"
    done = run("hpcgender", "train", "--data", shards, "--data", others, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "of several data sets each needs a weight" in done.stderr
