"""A scheduler that does not answer: that it has nothing of a job says nothing then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.jobs import CancelConfig, JobsConfig, ResubmitConfig, WhyConfig
from hpcgender.launch.occupied import warnings
from hpcgender.status.cancel import cancel
from hpcgender.status.resubmit import resubmit
from hpcgender.status.table import list_jobs
from hpcgender.status.why import why
from jobs.records import read_events
from shard_tools.base.commands import find_call
from shard_tools.base.errors import UserError
from tests.hpcgender.status_records import make_record, start
from tests.programs import put

DOWN = {
    "sge": "error: commlib error: got select error (Connection refused)",  # qstat's own words
    "slurm": "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
}
ASKS = {"sge": "qstat", "slurm": "squeue"}
ENDS = {"sge": "qdel", "slurm": "scancel"}


@pytest.fixture(params=["sge", "slurm"])
def silent(
    request: pytest.FixtureRequest, tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """A scheduler that does not answer, and its words; two tasks of an array have not begun by their records."""
    name: str = request.param
    for task in ("12.1", "12.2") if name == "sge" else ("12_1", "12_2"):
        make_record(tmp_path / "runs" / "mine", task, name)
    for program in (ASKS[name], ENDS[name], "scontrol", "sacct", "qacct"):
        put(tmp_path, program, f'echo "$0 $*" >> {tmp_path}/asked; echo "{DOWN[name]}" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return name, f"{ASKS[name]}: {DOWN[name]}"


def test_whether_a_job_waits_is_unknown_while_its_scheduler_is_silent(
    silent: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, error = silent
    monkeypatch.chdir(tmp_path)
    within = (Path("runs"),)
    list_jobs(JobsConfig(within=within))
    said = capsys.readouterr()
    rows = [line.split("\t") for line in said.out.splitlines()[1:]]
    assert [(row[3], row[-1]) for row in rows] == [("unknown", "its scheduler does not answer")] * 2
    assert said.err == f"hpcgender jobs: {error}; states are those in the records\n"

    why(WhyConfig(run="mine", within=within))
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert (first, second.rpartition(": ")[2]) == ("array 12: 2 unknown; of these", "unknown")
    assert third == f"  its scheduler does not answer: {error}"

    with pytest.raises(UserError, match=r"^whether run mine still waits or works is unknown, try again: "):
        resubmit(ResubmitConfig(run="mine", within=within))

    tasks = ("12.1", "12.2") if name == "sge" else ("12_1", "12_2")
    assert list(warnings(find_call(PROGRAMS, ("train", "--name", "mine")))) == [
        f"whether job {task} still works on runs/mine is unknown: {error}" for task in tasks
    ]


def test_nothing_is_said_to_be_cancelled_that_nobody_has_seen(
    silent: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, error = silent
    within = (tmp_path / "runs",)
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", 2 * f"hpcgender jobs cancel: {ENDS[name]}: {DOWN[name]}\n")
    tasks = ("12.1", "12.2") if name == "sge" else ("12_1", "12_2")
    asked = [f"{tmp_path}/{ENDS[name]} {task}" for task in tasks]  # others of the array may be of another run
    assert (tmp_path / "asked").read_text().splitlines()[-2:] == asked
    put(tmp_path, ENDS[name], "exit 0")
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 1
    said = capsys.readouterr()
    unseen = (f"hpcgender jobs cancel: cannot see whether job {task} ends: {error}\n" for task in tasks)
    assert (said.out, said.err) == ("", "".join(unseen))
    assert [read_events(record) for record in (tmp_path / "runs" / "mine" / "submissions").iterdir()] == [[], []]


def test_a_queue_without_the_job_says_nothing_while_accounting_is_silent(
    tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_record(tmp_path / "runs" / "mine", "12", "sge")
    make_record(tmp_path / "runs" / "other", "13", "slurm", [start()])
    put(tmp_path, "qstat", "echo '<job_info><queue_info/><job_info/></job_info>'")
    put(tmp_path, "squeue", "exit 0")
    for program in ("qacct", "sacct"):
        put(tmp_path, program, "echo 'no accounting' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    list_jobs(JobsConfig(within=(tmp_path / "runs",)))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(row[0], row[3], row[-1]) for row in rows] == [
        (run, "unknown", "its scheduler does not answer") for run in ("mine", "other")
    ]
