"""Submitting runs again, as they were submitted."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands.jobs import ResubmitConfig
from hpcgender.status.resubmit import launch_config, resubmit
from hpcgender.status.state import CANCELLED
from jobs.records import Resources
from tests.conftest import Run
from tests.hpcgender.status_records import end, make_record, start
from tests.programs import put

CANCEL = {"event": CANCELLED, "time": 0.0}


def test_a_script_submitted_by_hand_is_submitted_again_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"queue": "gpu", "qos": "long", "gpu": "a100", "memory_gb": 64, "options": ["--constraint=ib"]}
    make_record(
        tmp_path / "runs" / "mine",
        events=[start(), end(1)],
        command=("models",),
        script="/home/me/train.sh",
        site={"name": "slurm", "scheduler": "slurm", **asked},
        resources=Resources(gpus_per_node=2, cpus=8, time_min=60.0),
    )
    monkeypatch.chdir(tmp_path)
    assert resubmit(ResubmitConfig(run="mine", within=(tmp_path / "runs",), dry_run=True)) == 0
    script = capsys.readouterr().out
    for option in ("partition=gpu", "qos=long", "gpus-per-node=a100:2", "mem=65536M", "constraint=ib", "time=60"):
        assert f"\n#SBATCH --{option}\n" in script
    assert "\nexec " in script  # scancel --batch --signal=USR1 reaches the launcher


def test_a_resubmission_asks_for_what_the_submission_had(tmp_path: Path) -> None:
    wanted = Resources(nodes=2, procs_per_node=4, gpus_per_node=4, cpus=16, mem=64.0, time_min=1439.5)
    submission = make_record(tmp_path / "mine", resources=wanted, site={"name": "abci"}, scheduler="sge")
    config = launch_config(submission)
    assert config.command == (*submission.command, "--resume")
    assert (config.nodes, config.procs_per_node, config.gpus_per_node) == (2, 4, 4)
    assert (config.cpus, config.mem, config.time) == (16, 64.0, "1439.5m")
    assert (config.scheduler, config.site, config.job_name) == ("sge", "abci", "train_mine")
    evaluation = dataclasses.replace(submission, command=("evaluate", "--data", "x"), resources=Resources())
    assert launch_config(evaluation).command == ("evaluate", "--data", "x")
    assert (launch_config(evaluation).cpus, launch_config(evaluation).time) == (None, "")


def test_resubmitting_a_local_run(tmp_path: Path, run: Run, no_scheduler: None, shards: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    more: dict[str, Any] = {"resources": Resources(nodes=2, procs_per_node=1), "site": {"name": "local"}}
    command = ("train", "--data", str(shards), "--name", "mine", "--model", "compact")
    make_record(tmp_path / "runs" / "mine", "1", "local", [start(), end(1)], command=command, cwd=str(place), **more)
    done = run("hpcgender", "jobs", "resubmit", "mine", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 nodes (")
    assert f"with 1 process each: {sys.executable} -m hpcgender train --data {shards} " in done.stdout
    assert done.stdout.endswith("--resume\n")


def test_a_run_that_is_alive_is_not_resubmitted(
    tmp_path: Path, run: Run, no_scheduler: None, sleeper: subprocess.Popen[bytes]
) -> None:
    make_record(tmp_path / "runs" / "mine", str(sleeper.pid), "local", [start()])
    done = run("hpcgender", "jobs", "resubmit", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"hpcgender: run mine is running as job {sleeper.pid}: cancel it first, with hpcgender jobs cancel mine\n",
    )


def test_a_run_that_is_stopping_is_waited_for(
    tmp_path: Path, run: Run, no_scheduler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue's own words of a job that was cancelled a moment ago."""
    make_record(tmp_path / "runs" / "mine", "12", "slurm", [start(), CANCEL])
    put(tmp_path, "squeue", "echo '12|COMPLETING|9:50|2026-11-22T22:49:50|node[1-2]|None|train'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = run("hpcgender", "jobs", "resubmit", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "hpcgender: run mine is stopping as job 12: wait until it has ended, which hpcgender jobs logs mine --follow "
        "does\n",
    )
