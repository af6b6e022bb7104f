"""Trackers, with the real packages and without a network: one run each, and none of them ends a training."""

from __future__ import annotations

import json
import signal
import struct
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from hpcgender.commands.train import TrainConfig
from hpcgender.trackers import names
from hpcgender.trackers.following import Following, close_all, open_tracker
from hpcgender.trackers.names import TrackerName
from hpcgender.trackers.tracker import Point, TrackedRun, run_id
from hpcgender.train.log import point
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.test_resume import run_until

TRAIN = (
    *("train", "--model", "compact", "--image-size", 32, "--batch-size", 8, "--lr", 0.01, "--epochs", 3),
    *("--checkpoint-minutes", 0.0001, "--track", "mlflow", "wandb"),
)

SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT")


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's settings of the trackers; and this process reads MLflow's files, too."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def points_of(run_dir: Path) -> list[Point]:
    """What the trackers are to have."""
    return [point(json.loads(line)) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def mlflow_runs(runs: Path) -> list[Any]:
    """All runs in the store of a directory of runs."""
    client = mlflow_client(runs)
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def mlflow_client(runs: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=(runs / "mlruns").resolve().as_uri())


def wandb_records(run_dir: Path) -> Iterator[Any]:
    """The records of the run's only offline file: LevelDB's log format, in blocks of 32 KiB, after a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    raw, at, parts = path.read_bytes(), 7, b""
    assert raw.startswith(b":W&B")
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        parts += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def wandb_points(run_dir: Path) -> list[Point]:
    found = []
    for record in wandb_records(run_dir):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            values = {name: value for name, value in items.items() if not name.startswith("_")}
            found.append(Point(items["_step"], values))
    return found


@pytest.mark.slow
def test_a_killed_run_that_resumes_is_one_run_of_each_tracker(shards: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcgender", *map(str, TRAIN), "--data", str(shards)]
    code, output = run_until(command, tmp_path, 40, signal.SIGKILL)  # in the second epoch of 32 steps
    assert code == -signal.SIGKILL, output
    run_dir = tmp_path / "runs" / "train"
    code, output = run_until([*command, "--resume"], tmp_path, 80, signal.SIGTERM)
    assert code in (0, 99), output
    code, output = run_until([*command, "--resume"], tmp_path, None, signal.SIGTERM)
    assert code == 0, output
    assert "WARNING" not in output
    wanted = points_of(run_dir)
    assert [found.step for found in wanted] == [32, 64, 96]

    (tracked,) = mlflow_runs(run_dir.parent)
    assert (tracked.info.run_name, tracked.info.status) == ("train", "FINISHED")
    assert tracked.data.params["lr"] == "0.01"
    assert "augmentation/blur" in tracked.data.params
    client = mlflow_client(run_dir.parent)
    for name in wanted[0].values:
        history = client.get_metric_history(tracked.info.run_id, name)
        assert [(one.step, one.value) for one in history] == [(one.step, one.values[name]) for one in wanted], name

    assert wandb_points(run_dir) == wanted
    (about,) = (record.run for record in wandb_records(run_dir) if record.WhichOneof("record_type") == "run")
    assert (about.run_id, about.display_name) == (run_id(run_dir), "train")


def test_trackers_that_cannot_write_are_said_and_the_training_ends_as_without(
    shards: Path, tmp_path: Path, run: Run
) -> None:
    run_dir = tmp_path / "runs" / "train"
    run_dir.mkdir(parents=True)
    for blocked in (run_dir.parent / "mlruns", run_dir / "wandb", run_dir / "tensorboard"):
        blocked.write_text("a file, where a directory is to be")
    done = run("hpcgender", *TRAIN, "--data", shards, "--epochs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = sorted(line for line in done.stdout.splitlines() if "gets no more metrics" in line)
    assert [line.split()[1] for line in said] == ["TensorBoard", "mlflow", "wandb"]
    assert all(line.endswith("): training goes on") and "exists" in line for line in said), said
    assert [one.step for one in points_of(run_dir)] == [32, 64]


def test_a_server_that_does_not_answer_is_said(shards: Path, tmp_path: Path, run: Run) -> None:
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = run("hpcgender", *TRAIN[:-2], "mlflow", "--data", shards, "--epochs", 1, cwd=tmp_path, **nobody)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING: mlflow gets no more metrics of this run (") == 1
    assert "epoch 1/1 | " in done.stdout


class Failing:
    """A tracker that takes some points."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.taken: list[int] = []

    def write(self, point: Point) -> None:
        if len(self.taken) == self.takes:
            raise SystemExit("no space left\non the device")
        self.taken.append(point.step)

    def close(self, finished: bool) -> None:
        raise ValueError(f"closing, {finished}")


@pytest.mark.parametrize(("takes", "why"), [(1, "no space left on the device"), (9, "closing, True")])
def test_a_tracker_that_raises_is_said_once(takes: int, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Failing(takes)
    following = Following("mine", lambda: tracker)
    for step in (1, 2, 3):
        following.write(Point(step, {"a": 1.0}))
    close_all([following], finished=True)
    assert tracker.taken == [1, 2, 3][:takes]
    assert capsys.readouterr().out == f"WARNING: mine gets no more metrics of this run ({why}): training goes on\n"


def test_a_tracker_that_hangs_holds_nobody_up(capsys: pytest.CaptureFixture[str]) -> None:
    for_ever = Event()
    following = Following("mine", for_ever.wait)  # type: ignore[arg-type]  # it never returns a tracker
    following.write(Point(1, {"a": 1.0}))
    close_all([following], finished=True, patience=0.05)
    assert (
        "mine gets no more metrics of this run (it has not answered for 0.05 s at the end)" in capsys.readouterr().out
    )
    for_ever.set()
    following.thread.join()
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_whose_package_is_missing_is_refused_before_the_training(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName
) -> None:
    monkeypatch.setattr(names, "find_spec", lambda _: None)
    config = TrainConfig(data=shards, runs=tmp_path, model="compact", image_size=32, batch_size=8, track=(name,))
    with pytest.raises(UserError, match=rf"^--track {name} needs the extra {name}: .*pip install .*'\.\[{name}\]'$"):
        config.check()


def test_a_tracker_added_later_gets_all_points(tmp_path: Path) -> None:
    """And of a long run's many: more than MLflow takes in one call."""
    past = [Point(step, {f"m/{number}": float(step) for number in range(1100)}) for step in (10, 20)]
    run = TrackedRun(
        directory=tmp_path / "a", id="abc", options={f"o/{number}": number for number in range(150)}, step=20, past=past
    )
    run.directory.mkdir()
    following = Following("mlflow", partial(open_tracker, "mlflow", run))
    following.write(Point(30, {"m/0": 1.0}))
    close_all([following], finished=False)
    (tracked,) = mlflow_runs(tmp_path)
    assert (tracked.info.status, len(tracked.data.params), len(tracked.data.metrics)) == ("KILLED", 150, 1100)
    history = mlflow_client(tmp_path).get_metric_history(tracked.info.run_id, "m/0")
    assert [(one.step, one.value) for one in history] == [(10, 10.0), (20, 20.0), (30, 1.0)]
