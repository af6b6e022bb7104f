"""Several ranks, each on its GPU: they train as one, end together, and find the GPUs that are theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from shard_tools.base.errors import REQUEUE
from tests.conftest import REPOSITORY, Run
from tests.hpcgender.evaluate.examples import save_model
from tests.hpcgender.test_resume import processes_in

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("two_devices")]

SMALL = ("--image-size", 32, "--batch-size", 16, "--precision", "fp32", "--lr", 0.01, "--augment", "none")
LOCAL = ("--scheduler", "local")


def launched(run: Run, processes: int, *command: object, cwd: Path, **environment: str) -> None:
    """Runs a command with so many processes on this machine."""
    done = run("hpcgender.launch", *LOCAL, "--procs-per-node", processes, "--", *command, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_train_as_one(run: Run, shards: Path, device: torch.device, tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are each rank's own; or frozen on a CPU, which is slow for vgg."""
    model: tuple[object, ...] = ("--model", "vgg11")
    if device.type == "cpu":
        weights = save_model(tmp_path / "best.pt", model="compact", tasks=("gender",))
        model = ("--model", "compact", "--pretrained", weights, "--freeze", "backbone")
    for processes in (1, 2):
        options = (*model, "--dropout", 0, "--epochs", 1, "--no-tf32", *SMALL)
        launched(run, processes, "train", "--data", shards, "--name", processes, *options, cwd=tmp_path)
    alone, together = (records(tmp_path / "runs" / name)[-1] for name in ("1", "2"))
    assert together["train"]["loss"] == pytest.approx(alone["train"]["loss"], rel=0.01)
    assert together["val"]["loss"] == pytest.approx(alone["val"]["loss"], rel=0.02)


def test_synchronised_batch_normalisation_is_that_of_one_big_batch(
    run: Run, shards: Path, gpu: torch.device, tmp_path: Path
) -> None:
    for processes in (1, 2):
        options = ("--model", "resnet18", "--epochs", 1, "--sync-bn", "--no-tf32", *SMALL)
        launched(run, processes, "train", "--data", shards, "--name", processes, *options, cwd=tmp_path)
    alone, together = (records(tmp_path / "runs" / name)[-1] for name in ("1", "2"))
    assert together["train"]["loss"] == pytest.approx(alone["train"]["loss"], rel=0.02)


@pytest.mark.parametrize(
    ("command", "files"),
    [("evaluate", ("predictions.parquet", "predictions.csv")), ("cam", ("averages.npz", "maps.csv"))],
)
def test_results_of_several_shares_have_the_bytes_of_one(
    command: str, files: tuple[str, ...], run: Run, shards: Path, device: torch.device, tmp_path: Path
) -> None:
    """Of three, where there are as many GPUs."""
    checkpoint = save_model(tmp_path / "best.pt")
    several = 3 if device.type == "cpu" else min(3, torch.cuda.device_count())
    for processes in (1, several):
        options = ("--checkpoint", checkpoint, "--data", shards, "--batch-size", 4, "--out", tmp_path / str(processes))
        launched(run, processes, command, *options, cwd=tmp_path)
    for file in files:
        assert (tmp_path / str(several) / file).read_bytes() == (tmp_path / "1" / file).read_bytes()


class Training:
    """A long training of two ranks, in the middle of it."""

    def __init__(self, shards: Path, directory: Path) -> None:
        self.directory, self.log = directory, directory / "log"
        options = ("--model", "compact", "--epochs", 1000, *SMALL)
        command = ("hpcgender.launch", *LOCAL, "--procs-per-node", 2, "--", "train", "--data", shards, *options)
        with self.log.open("w") as log:
            self.launcher = subprocess.Popen(
                [sys.executable, "-m", *map(str, command)],
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            )
        while "epoch 2/1000" not in self.log.read_text():
            assert self.launcher.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environ = (process / "environ").read_bytes().split(b"\0")
                words, here = (process / "cmdline").read_bytes(), (process / "cwd").readlink() == self.directory
            except OSError:  # it has ended, or is another user's
                continue
            if here and b"jobs.rank" in words and b"RANK=%d" % rank in environ:
                return int(process.name)
        raise AssertionError(f"no rank {rank}")

    def ends(self) -> int:
        """The launcher's exit code, within a minute."""
        return self.launcher.wait(60)


@pytest.fixture
def training(shards: Path, tmp_path: Path) -> Iterator[Training]:
    """Nothing of it is left, however the test ends."""
    started = Training(shards, tmp_path)
    yield started
    for pid in processes_in(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.launcher.wait()


def test_a_killed_rank_ends_the_others(training: Training) -> None:
    os.kill(training.pid(1), signal.SIGKILL)
    assert training.ends() not in (0, REQUEUE)
    assert "rank 1 failed: killed by SIGKILL" in training.log.read_text()


def test_a_signal_stops_all_ranks_at_one_step(training: Training, tmp_path: Path) -> None:
    training.launcher.send_signal(signal.SIGTERM)
    assert training.ends() == REQUEUE
    assert "stopped by SIGTERM after step" in training.log.read_text()
    assert list((tmp_path / "runs" / "train" / "checkpoints").glob("step-*.pt"))


def uuids() -> list[str]:
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    return [line.rpartition("UUID: ")[2].rstrip(")") for line in listing.splitlines() if line.startswith("GPU ")]


def test_ranks_find_their_gpus_by_uuid(run: Run, shards: Path, gpu: torch.device, tmp_path: Path) -> None:
    mask = ",".join(reversed(uuids()[:2]))
    options = ("--checkpoint", save_model(tmp_path / "best.pt"), "--data", shards, "--out", tmp_path / "out")
    launched(run, 2, "evaluate", *options, cwd=tmp_path, CUDA_VISIBLE_DEVICES=mask)


def test_local_nodes_have_gpus_of_their_own(run: Run, shards: Path, gpu: torch.device, tmp_path: Path) -> None:
    options = ("--checkpoint", save_model(tmp_path / "best.pt"), "--data", shards, "--out", tmp_path / "out")
    done = run("hpcgender.launch", *LOCAL, "--nodes", 2, "--gpus-per-node", 1, "--", "evaluate", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # NCCL refuses two ranks on one GPU
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["run"]["world_size"] == 2
