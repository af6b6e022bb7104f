"""The main job on a few hundred drawn faces: pack, train on two ranks, evaluate, predict, look."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.cam.results import read_cam
from hpcgender.evaluate.results import read_evaluation
from shard_tools.base.text import plural
from shard_tools.manifest import read_manifest
from tests.conftest import Run

SMALL = ("--model", "se_resnet18", "--image-size", 32, "--output-stride", 16, "--batch-size", 32, "--lr", 0.02)
LAUNCH = ("hpcgender.launch", "--nodes", 2, "--")
EPOCH_LINE = re.compile(
    r"epoch (\d+)/3 \| train loss (\d+\.\d{4}) acc \d+\.\d\d% \| val loss \d+\.\d{4} acc \d+\.\d\d% "
    r"\(female \d+\.\d\d% male \d+\.\d\d%\) \| lr \d\.\de[+-]\d\d \| \d+ img/s \| data wait \d+\.\d% \| eta \w+"
)


def agent(processes: int) -> tuple[str, ...]:
    """Runs a module on so many processes of one node, as a launch of more nodes does on each."""
    return "jobs.agent", f"--nproc-per-node={processes}", "-m"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, run: Run, shards: Path) -> tuple[Path, str]:
    """A run directory of three epochs on two nodes, and what the launcher printed."""
    cwd = tmp_path_factory.mktemp("work")
    done = run(*LAUNCH, "train", "--data", shards, *SMALL, "--epochs", 3, "--name", "both", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs" / "both", done.stdout


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def model_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    content: dict[str, dict[str, torch.Tensor]] = torch.load(checkpoint, weights_only=True)
    return content["model"]


def test_the_log_has_one_line_an_epoch_and_the_loss_falls(trained: tuple[Path, str]) -> None:
    run_dir, log = trained
    lines = [line for line in log.splitlines() if line.startswith("epoch ")]
    matches = [EPOCH_LINE.fullmatch(line) for line in lines]
    assert [match and match[1] for match in matches] == ["1", "2", "3"]
    records = metrics(run_dir)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[2]["train"]["loss"] < records[0]["train"]["loss"]


def test_every_epoch_counts_every_image(trained: tuple[Path, str], shards: Path) -> None:
    splits = read_manifest(shards).splits
    for record in metrics(trained[0]):
        assert record["train"]["images"] == splits["train"].samples // 32 * 32
        assert record["val"]["images"] == splits["val"].samples


def test_the_run_directory(trained: tuple[Path, str], shards: Path, run: Run) -> None:
    run_dir, _ = trained
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["model"], config["batch_size"], config["seed"]) == ("se_resnet18", 32, 0)
    assert list((run_dir / "tensorboard").iterdir())
    assert (run_dir / "logs" / "rank-1.log").exists()
    last = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)
    assert last["classes"] == ["female", "male"]
    assert last["manifest"] == read_manifest(shards).sha256
    assert last["epoch"] == 3
    assert "learner" not in torch.load(run_dir / "checkpoints" / "best.pt", weights_only=True)
    # What the run was trained with can be given back to it.
    again = run("hpcgender", "train", "--config", run_dir / "config.toml", "--print-config")
    assert again.returncode == 0
    assert again.stdout == (run_dir / "config.toml").read_text()


def test_both_ranks_hold_equal_weights(run: Run, shards: Path, tmp_path: Path) -> None:
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "tests.hpcgender.two_ranks")
    repository = Path(__file__).parent.parent.parent
    options = ("--data", shards, *SMALL, "--epochs", 1, "--runs", tmp_path / "runs")
    done = run(*torchrun, *options, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    held = json.loads((tmp_path / "runs" / "train" / "held.json").read_text())
    assert len(held) == 2
    assert held[0] == held[1]


def processes_of(text: str) -> list[int]:
    """The processes whose command line has `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if text in path.read_text():
                found.append(int(path.parent.name))
    return found


def test_a_killed_run_goes_on_to_the_same_weights(trained: tuple[Path, str], run: Run, shards: Path) -> None:
    run_dir, _ = trained
    cwd, killed = run_dir.parent.parent, run_dir.parent / "killed"
    train = [*LAUNCH, "train", "--data", shards, *SMALL, "--epochs", 3, "--name", "killed", "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, train)]
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch 1/3"):
                break
        while not list((killed / "checkpoints").glob("step-*.pt")):  # it is written while training goes on
            time.sleep(0.01)
        process.kill()
    deadline = time.monotonic() + 300
    while processes_of(str(shards)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(str(shards))
    assert [record["epoch"] for record in metrics(killed)] == [1]

    done = run(*train, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert f"resuming runs/{killed.name}" in done.stdout
    assert [record["epoch"] for record in metrics(killed)] == [1, 2, 3]
    expected = model_of(run_dir / "checkpoints" / "last.pt")
    weights = model_of(killed / "checkpoints" / "last.pt")
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert [r["val"] for r in metrics(killed)] == [r["val"] for r in metrics(run_dir)]

    again = run("hpcgender", *train[len(LAUNCH) :], cwd=cwd)
    assert again.returncode == 0
    assert "runs/killed is finished: 3 epochs" in again.stdout


def test_a_run_is_not_trained_over_nor_gone_on_with_otherwise(
    trained: tuple[Path, str], run: Run, shards: Path
) -> None:
    cwd = trained[0].parent.parent
    train = ("hpcgender", "train", "--data", shards, *SMALL, "--epochs", 3, "--name", "both")
    anew = run(*train, cwd=cwd)
    assert (anew.returncode, anew.stderr) == (
        2,
        "hpcgender: runs/both holds a run already: resume it with hpcgender train --name both --resume, or give "
        "another --name\n",
    )
    other = run(*train, "--resume", "--seed", 1, cwd=cwd)
    assert other.returncode == 2
    assert other.stderr == (
        "hpcgender: runs/both was trained with --seed 0, not 1: resume it with hpcgender train --name both --resume, "
        "or give another --name\n"
    )


def evaluate(run: Run, nodes: int, shards: Path, checkpoint: Path, split: str, out: Path) -> list[dict[str, str]]:
    program = (*agent(nodes), "hpcgender") if nodes > 1 else ("hpcgender",)
    options = ("--checkpoint", checkpoint, "--data", shards, "--split", split, "--out", out, "--batch-size", 16)
    done = run(*program, "evaluate", *options)
    assert done.returncode == 0, done.stderr
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluation_counts_every_image_once(trained: tuple[Path, str], run: Run, shards: Path, tmp_path: Path) -> None:
    run_dir, _ = trained
    index = np.sort(read_manifest(shards).index("val"), order="key")
    last = run_dir / "checkpoints" / "last.pt"
    for nodes in (1, 3):
        rows = evaluate(run, nodes, shards, last, "val", tmp_path / str(nodes))
        assert [row["key"] for row in rows] == [key.decode() for key in index["key"]]
        assert [row["label"] for row in rows] == [("female", "male")[gender] for gender in index["gender"]]
        gender = read_evaluation(tmp_path / str(nodes)).gender
        assert gender
        assert gender.images == len(index)
        # As validation in training found for the same weights.
        val = metrics(run_dir)[-1]["val"]
        assert gender.accuracy.value == pytest.approx(val["accuracy"])
        assert gender.roc_auc.value == pytest.approx(val["roc_auc"])
        assert gender.calibration.log_loss == pytest.approx(val["loss"], rel=1e-5)


def test_predict_agrees_with_evaluate(
    trained: tuple[Path, str], run: Run, shards: Path, faces: Path, tmp_path: Path
) -> None:
    best = trained[0] / "checkpoints" / "best.pt"
    rows = evaluate(run, 1, shards, best, "test", tmp_path)[:5]
    files = [faces / f"{row['key']}.JPG" for row in rows]
    done = run("hpcgender", "predict", "--checkpoint", best, "--json", *files)
    assert done.returncode == 0, done.stderr
    for row, found in zip(rows, json.loads(done.stdout), strict=True):
        assert found["label"] == row["prediction"]
        assert found["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)
        assert found["confidence_percent"] == pytest.approx(
            100 * max(found["probability"], 1 - found["probability"]), abs=0.006
        )
    lines = run("hpcgender", "predict", "--checkpoint", best, files[0]).stdout
    assert re.fullmatch(rf"{re.escape(str(files[0]))}: (fe)?male \d+\.\d\d %\n", lines)


def test_two_ranks_go_on_past_bad_images_with_staged_shards_and_balanced_classes(
    run: Run, shards: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    manifest = read_manifest(copy)
    bad = {}
    for split in ("train", "test"):
        row = manifest.index(split)[3]
        tar = manifest.shard_paths(split)[row["shard"]]
        with tar.open("r+b") as file:
            file.seek(int(row["offset"]))
            file.write(b"garbage" * 20)
        shard = next(shard for shard in manifest.split(split).shards if copy / shard.file == tar)
        bad[split] = row["key"].decode()
        # As if it had been packed so: staging compares the copies with the manifest.
        text = (copy / "manifest.json").read_text()
        digest = hashlib.sha256(tar.read_bytes()).hexdigest()
        (copy / "manifest.json").write_text(text.replace(shard.sha256, digest))
    scratch = tmp_path / "scratch"
    balanced = ("--epochs", 1, "--sampling", "oversample", "--last-batch", "pad")
    options = (*balanced, "--stage-to", scratch, "--max-bad", 0.05)
    done = run(*LAUNCH, "train", "--data", copy, *SMALL, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "runs" / "train"
    counts = manifest.split("train").counts
    target = max(counts.values())
    assert f"oversample: an epoch draws {target} of {counts['female']} female, {target} of" in done.stdout
    # By the first rank to look, which may be the other one.
    assert re.search(rf"staged train: .* to {scratch}|train is staged: .* in {scratch}", done.stdout)
    assert list(scratch.iterdir()) == []
    (record,) = metrics(run_dir)
    assert record["bad_images"] >= 1
    assert record["train"]["images"] == -(-2 * target // 32) * 32
    assert f"{plural(record['bad_images'], 'image')} of this epoch failed to decode" in done.stdout
    logs = done.stderr + "".join(log.read_text() for log in (run_dir / "logs").glob("rank-*.log"))
    assert f"{bad['train']} in " in logs

    checkpoint = run_dir / "checkpoints" / "best.pt"
    done = run(
        *agent(2), "hpcgender", "evaluate", "--checkpoint", checkpoint, "--data", copy, "--max-bad", 0.5, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"1 of {manifest.split('test').samples} images failed to decode" in done.stdout
    rows = list(csv.DictReader((run_dir / "evaluations" / "copy-test" / "predictions.csv").read_text().splitlines()))
    assert [row["key"] for row in rows if not row["prediction"]] == [bad["test"]]
    done = run(
        *agent(2), "hpcgender", "cam", "--checkpoint", checkpoint, "--data", copy, "--max-bad", 0.5, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((run_dir / "cams" / "copy-test" / "maps.csv").read_text().splitlines()))
    assert [row["key"] for row in rows if not row["prediction"]] == [bad["test"]]


def test_a_split_of_one_class_is_measured_and_drawn_as_far_as_it_goes(
    trained: tuple[Path, str], run: Run, faces: Path, tmp_path: Path
) -> None:
    for face in sorted(faces.glob("*M??.JPG"))[:10]:
        (tmp_path / "men").mkdir(exist_ok=True)
        (tmp_path / "men" / face.name).write_bytes(face.read_bytes())
    packed = run(
        "shard_tools", "pack", "morph", "--images", tmp_path / "men", "--out", tmp_path / "p", "--val", 0, "--test", 1
    )
    assert packed.returncode == 0, packed.stderr
    options = (
        "--checkpoint",
        trained[0] / "checkpoints" / "best.pt",
        "--data",
        tmp_path / "p",
        "--out",
        tmp_path / "o",
    )
    for command in ("evaluate", "cam"):
        done = run("hpcgender", command, *options)
        assert done.returncode == 0, done.stderr
    gender = read_evaluation(tmp_path / "o").gender
    assert gender
    assert (gender.images, gender.classes[0].images) == (10, 0)
    assert gender.classes[1].recall.value == gender.accuracy.value
    assert {average.gender for average in read_cam(tmp_path / "o").averages} == {"male"}
    assert (tmp_path / "o" / "sheet.png").exists()
