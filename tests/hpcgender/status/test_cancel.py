"""Cancelling runs: what is said to be cancelled has been seen to be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcgender.commands.jobs import CancelConfig
from hpcgender.status.cancel import cancel
from hpcgender.status.state import CANCELLED
from jobs.records import read_events
from tests.conftest import Run
from tests.hpcgender.status_records import end, make_record, start
from tests.programs import put


def test_cancelling_a_local_run(tmp_path: Path, run: Run, no_scheduler: None, sleeper: subprocess.Popen[bytes]) -> None:
    make_record(tmp_path / "runs" / "mine", str(sleeper.pid), "local", [start()])
    make_record(tmp_path / "runs" / "done", str(sleeper.pid), "local", [start(), end(0)])
    done = run("hpcgender", "jobs", "cancel", "mine", "done", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == f"done (job {sleeper.pid}) has ended already: done\nasked process {sleeper.pid} to stop (mine)\n"
    )
    assert sleeper.wait(10) == -15
    assert "\tcancelled\t" in run("hpcgender", "jobs", "mine", cwd=tmp_path).stdout


def test_what_a_scheduler_goes_on_with_is_not_cancelled(
    tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """scancel takes an id that it does not know without a word; squeue has the last one."""
    running = [make_record(tmp_path / "runs" / "mine", f"12_{task}", "slurm", [start()]) for task in (1, 2)]
    state = tmp_path / "state"
    state.write_text("RUNNING")
    line = f"$(/bin/cat {state})|9:50|2026-11-22T22:49:50|node1|None|train"
    for name, script in {
        "scancel": f'echo "$@" >> {tmp_path}/asked',
        "squeue": f'echo "12_1|{line}"; echo "12_2|{line}"',
    }.items():
        put(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("hpcgender.status.cancel.LOOK_SECONDS", 0.0)
    within = (tmp_path / "runs",)
    assert cancel(CancelConfig(runs=("12_2",), within=within)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hpcgender jobs cancel: job 12_2 (mine) is still running, although Slurm was asked")
    assert [event["event"] for event in read_events(running[1].directory)] == ["start"]

    state.write_text("COMPLETING")
    assert cancel(CancelConfig(runs=("12",), within=within)) == 0  # as sbatch printed it
    assert capsys.readouterr().out == "cancelled job 12 (mine)\n"
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 0
    assert capsys.readouterr().out == "cancelled job 12 (mine)\n"
    make_record(tmp_path / "runs" / "other", "12_3", "slurm", [start(), end(0)])  # an array of several runs
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 0
    assert capsys.readouterr().out == "cancelled job 12_1 (mine)\ncancelled job 12_2 (mine)\n"
    assert (tmp_path / "asked").read_text() == "12_2\n12\n12\n12_1\n12_2\n"
    assert all(read_events(record.directory)[-1]["event"] == CANCELLED for record in running)
