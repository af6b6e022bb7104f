"""The engine on drawn faces: evaluate killed and stopped resumes to the same bytes; cam has evaluate's log-odds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.inference.engine import compute
from shard_tools.manifest import read_manifest
from tests.conftest import REPOSITORY, Run
from tests.hpcgender.evaluate.examples import save_model

KILLED = -9
BATCH = 4
FILES = ("predictions.csv", "predictions.parquet", "errors.csv", "errors.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The drawn faces; one of test and all of one block of val do not decode."""
    out = tmp_path_factory.mktemp("spoilt") / "faces"
    shutil.copytree(shards, out)
    manifest = read_manifest(out)
    for split, samples in (("test", [5]), ("val", range(BATCH, 2 * BATCH))):
        for row in manifest.index(split)[list(samples)]:
            with manifest.shard_paths(split)[row["shard"]].open("r+b") as file:
                file.seek(int(row["offset"]))
                file.write(b"garbage" * 20)
    return out


def evaluated(
    run: Run, signal: str, checkpoint: Path, data: Path, out: Path, processes: int = 1, *options: object
) -> Any:
    """Evaluates with a temperature from val, saving the state after each block, with a signal to each process."""
    command = ("-m", "tests.hpcgender.inference.interrupted", *signal.split(), "evaluate", "--checkpoint", checkpoint)
    where = ("--data", data, "--out", out, "--batch-size", BATCH, "--max-bad", 0.3)
    command += (*where, "--flip", "--errors", "--temperature-from", "val", *options)
    if processes == 1:
        return run(*command[1:], cwd=REPOSITORY)
    return run("jobs.agent", f"--nproc-per-node={processes}", *command, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run: Run, checkpoint: Path, packed: Path) -> Path:
    """The evaluation of one process that nobody interrupted."""
    out = tmp_path_factory.mktemp("evaluations") / "whole"
    done = evaluated(run, "SIGTERM test 0", checkpoint, packed, out)
    assert done.returncode == 0, done.stderr
    return out


def numbers(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    del content["run"]
    return content


def same(left: Path, right: Path) -> None:
    """Asserts that two evaluations have the same bytes, and left nothing else."""
    for name in FILES:
        assert (right / name).read_bytes() == (left / name).read_bytes(), name
    assert numbers(right) == numbers(left)
    assert {path.name for path in right.iterdir()} - {"logs"} == {*FILES, "evaluation.json"}


def test_killed_and_stopped_evaluate_resumes_to_the_same_bytes(
    run: Run, checkpoint: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = evaluated(run, "SIGKILL test 3", checkpoint, packed, out)
    assert killed.returncode == KILLED, killed.stderr
    assert not (out / "evaluation.json").exists()
    stopped = evaluated(run, "SIGTERM test 2", checkpoint, packed, out, 2)
    assert stopped.returncode == 99, stopped.stderr
    assert f"resuming test: {2 * BATCH} of " in stopped.stdout
    assert "stopped by SIGTERM, the work so far is saved: the same command resumes" in stopped.stdout
    killed = evaluated(run, "SIGKILL val 2", checkpoint, packed, out, 2)
    assert killed.returncode != 0
    assert not (out / "evaluation.json").exists()
    done = evaluated(run, "SIGTERM test 0", checkpoint, packed, out, 3)
    assert done.returncode == 0, done.stderr
    assert "resuming val: " in done.stdout
    assert "resuming test: " not in done.stdout  # it was complete
    same(whole, out)
    again = evaluated(run, "SIGTERM test 0", checkpoint, packed, out)
    assert again.returncode == 0, again.stderr
    assert "resuming" not in again.stdout  # a finished evaluation is done anew
    same(whole, out)


def test_killed_on_two_processes_it_resumes_on_one(
    run: Run, checkpoint: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = evaluated(run, "SIGKILL test 2", checkpoint, packed, out, 2)
    assert killed.returncode != 0
    assert not (out / "evaluation.json").exists()
    done = evaluated(run, "SIGTERM test 0", checkpoint, packed, out)
    assert done.returncode == 0, done.stderr
    assert "resuming test: " in done.stdout
    same(whole, out)


def test_out_of_time_it_saves_its_work_and_asks_to_be_started_again(
    run: Run, checkpoint: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stopped = evaluated(run, "SIGTERM test 0", checkpoint, packed, out, 1, "--stop-after", 1e-4)
    assert stopped.returncode == 99, stopped.stderr
    assert "stopped by --stop-after 0.0001" in stopped.stdout
    assert evaluated(run, "SIGTERM test 0", checkpoint, packed, out).returncode == 0
    same(whole, out)


def test_unfinished_work_of_another_checkpoint_is_refused_and_kept(
    run: Run, checkpoint: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", save_model(tmp_path / "other.pt", seed=1)
    assert evaluated(run, "SIGKILL test 4", checkpoint, packed, out).returncode == KILLED
    refused = evaluated(run, "SIGTERM test 0", other, packed, out)
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"{out} holds predictions of another checkpoint: give another --out, or remove it\n")
    note = out / "work" / "test.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "began on": "another GPU"}))
    done = evaluated(run, "SIGTERM test 0", checkpoint, packed, out)
    assert done.returncode == 0, done.stderr
    assert "resuming test: " in done.stdout
    assert "test began on another GPU and resumes on cpu with PyTorch" in done.stdout
    same(whole, out)


@pytest.mark.parametrize("model", ["se_resnet18", "compact", "vgg11_bn"])
def test_cam_has_the_log_odds_of_evaluate(run: Run, packed: Path, tmp_path: Path, model: str) -> None:
    checkpoint = save_model(tmp_path / "best.pt", model=model)
    options = ("--checkpoint", checkpoint, "--data", packed, "--batch-size", 16, "--max-bad", 0.3)
    for command, more in (("evaluate", ()), ("cam", ("--deletion", 0))):
        done = run("hpcgender", command, *options, "--out", tmp_path / command, *more)
        assert done.returncode == 0, done.stderr
    maps = tmp_path / "cam" / "maps"
    keys, log_odds = (
        np.concatenate([np.load(path) for path in sorted(maps.glob(f"{name}-*.npy"))]) for name in ("keys", "log_odds")
    )
    with (tmp_path / "evaluate" / "predictions.csv").open(newline="") as file:
        predicted = {row["key"].encode(): np.float32(row["logit"] or "nan") for row in csv.DictReader(file)}
    assert len(keys) % 16  # the last block is not full, and one has an image that does not decode
    np.testing.assert_array_equal(log_odds, [predicted[key] for key in keys.tolist()])


def test_results_come_in_order_and_without_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    for threads in (0, 1, 3):
        results = list(compute(range(7), lambda number: weight * number, threads=threads))
        assert [(number, result.item(), result.requires_grad) for number, result in results] == [
            (number, number, False) for number in range(7)
        ]
