"""Checks of `hpcgender doctor`, and the failures of each: signals, the time limit and the requeue of a job."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from hpcgender.doctor import scheduler
from jobs.schedulers import LOCAL, find_allocation

CPU = torch.device("cpu")
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('epoch 1/2', flush=True); input()", "was killed by SIGUSR1, not with 99"),
        ("import sys; sys.exit('no space left')", "ended with exit code 1, not with 99: no space left"),
        (
            "import signal, time; signal.signal(10, lambda *_: None); print('epoch 1/2', flush=True)\n"
            "while True: time.sleep(1)",
            "did not end",
        ),
        (
            "import signal, sys, time; signal.signal(10, lambda *_: sys.exit(99)); print('epoch 1/2', flush=True)\n"
            "time.sleep(60)",
            "that got SIGTERM",
        ),
    ],
)
def test_a_training_that_does_not_save_or_resume_is_told(
    program: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "START_SECONDS", 3.0)
    monkeypatch.setattr(scheduler, "STOP_SECONDS", 1.0)
    found = scheduler.interruption(["bash", "-c", 'exec "$0" -c "$1" < /dev/zero', sys.executable, program])
    assert found.state == "red"
    assert says in found.found


def test_a_job_whose_end_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert scheduler.time_limit(find_allocation(SLURM), SLURM, time.time()).state == "yellow"
    assert scheduler.time_limit(LOCAL.allocation({}), {}, time.time()).state == "green"


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text('scheduler = "slurm"\n')
    monkeypatch.setenv("PATH", "/nowhere")
    found = scheduler.accepts(1)
    assert found.state == "red"
    assert "there is no sbatch here" in found.found
