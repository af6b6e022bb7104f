"""Arrays: all tasks are counted and cancelled in a few calls, and those that have not begun have a hint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.jobs import CancelConfig, JobsConfig, WhyConfig
from hpcgender.launch.occupied import warnings
from hpcgender.status.cancel import cancel
from hpcgender.status.table import list_jobs
from hpcgender.status.why import why
from shard_tools.base.commands import find_call
from tests.hpcgender.status_records import make_record, start
from tests.programs import cat, put, qacct


@pytest.mark.parametrize(("tasks", "recorded"), [(1000, False), (100, True)])
def test_a_large_array_takes_a_few_calls(
    tasks: int,
    recorded: bool,
    tmp_path: Path,
    no_scheduler: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for task in range(1, tasks + 1) if recorded else ():
        make_record(tmp_path / "runs" / "mine", f"12_{task}", "slurm", [start()])
    (tmp_path / "state").write_text("PENDING")
    asks = f"echo x >> {tmp_path}/calls; state=$(/bin/cat {tmp_path}/state); "
    for name, script in {
        "scancel": f"{asks} echo COMPLETING > {tmp_path}/state",
        "squeue": f'{asks} for n in $(/usr/bin/seq {tasks}); do echo "12_$n|$state|9:50|N/A||JobHeldUser|arr"; done',
        "scontrol": f"{asks} echo 'JobId=12 ArrayJobId=12 ArrayTaskId=1-1000 JobState=PENDING Reason=JobHeldUser'",
        "sacct": asks,
        "sbatch": asks,
    }.items():
        put(tmp_path, name, script)
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    within = (tmp_path / "runs",)
    list_jobs(JobsConfig(within=within))
    said = capsys.readouterr()
    assert said.out.count("held") == tasks if recorded else f"without a record here: {tasks} held (12 arr)" in said.err
    why(WhyConfig(run="12", within=within))
    found = capsys.readouterr().out
    assert f"array 12: {tasks} held; of these\n" in found
    if not recorded:
        hint = "see hpcgender jobs why 12; hpcgender jobs cancel 12_1 cancels one\n"
        assert f"\narray 12: {tasks:,} tasks not begun (JobHeldUser): {hint}" in said.err
        assert found.endswith("  hpcgender jobs cancel 12_1 cancels it, hpcgender jobs cancel 12 the whole array\n")
    assert cancel(CancelConfig(runs=("mine" if recorded else "12",), within=within)) == 0
    assert capsys.readouterr().out == f"cancelled job 12{' (mine)' if recorded else ''}\n"
    assert (tmp_path / "calls").read_text().count("x") < 12


def test_tasks_that_have_not_begun_are_counted_beside_those_with_a_record(
    tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """squeue's own words of an array of six tasks, of which two may run at once: --array=1-6%2."""
    for task in (1, 2):
        make_record(tmp_path / "runs" / f"seed{task}", f"12_{task}", "slurm", [start()])
    lines = [
        *(f"12_{task}|PENDING|10:00|N/A||JobArrayTaskLimit|seeds" for task in range(3, 7)),
        *(f"12_{task}|RUNNING|9:57|2026-11-30T09:20:11|node1|None|seeds" for task in (1, 2)),
    ]
    put(tmp_path, "squeue", cat("\n".join(lines)))
    (tmp_path / "scontrol").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    within = (tmp_path / "runs",)
    list_jobs(JobsConfig(within=within))
    assert capsys.readouterr().err == (
        "without a record here: 4 pending (12 seeds)\n"
        "array 12: 4 tasks not begun (JobArrayTaskLimit): see hpcgender jobs why 12; hpcgender jobs cancel 12_3 "
        "cancels one\n"
    )
    why(WhyConfig(run="12", within=within))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "array 12: 2 running, 4 pending; of these"
    assert said[1].endswith(" on Slurm, attempt 1: running")
    assert said[-3:] == [
        "job 12_3 seeds on Slurm: pending",
        "  JobArrayTaskLimit: as many tasks of its array run as may at once: the number after % in --array",
        "  hpcgender jobs cancel 12_3 cancels it, hpcgender jobs cancel 12 the whole array",
    ]
    why(WhyConfig(run="12_2", within=within))
    assert "array" not in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    resumed = find_call(PROGRAMS, ("train", "--name", "seed2", "--resume"))
    assert len(list(warnings(resumed))) == len(list(warnings(resumed, ("11",)))) == 1
    assert list(warnings(resumed, ("12",))) == list(warnings(resumed, ("12_2",))) == []  # it waits for them


@pytest.mark.parametrize("scheduler", ["sge", "slurm"])
def test_an_ended_array_without_a_record_is_known_by_the_id_that_was_printed(
    scheduler: str,
    tmp_path: Path,
    no_scheduler: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By accounting; a task of Slurm has a number of its own, which is in the name of a log with %j."""
    sge = scheduler == "sge"
    began = "node1|None|2026-11-22T22:54:50|early"
    sacct = f"12_1|COMPLETED|0:0|{began}\n12_2|FAILED|3:0|{began}\n"
    programs = {
        **{"qconf": "", "qsub": "", "qstat": "echo '<job_info><queue_info/><job_info/></job_info>'"},
        "qacct": cat(qacct(0, 3)),
    }
    if not sge:
        raw = 'case "$*" in *JobIDRaw*) echo 14 ;; '
        programs = {
            **{"sbatch": "", "squeue": "", "scontrol": "echo 'Invalid job id specified' >&2; exit 1"},
            "sacct": f"{raw} *) {cat(sacct)} esac",
        }
    for name, script in programs.items():
        put(tmp_path, name, script)
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SGE_ROOT" if sge else "SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    within = (tmp_path / "runs",)
    task, log = ("12.2", "early.o12.2") if sge else ("12_2", "early.o14")
    why(WhyConfig(run="12", within=within))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "array 12: 1 done, 1 failed; of these",
        f"job {task} early on {'Grid Engine' if sge else 'Slurm'}: failed",
        "  exit code 3",
        "  no record here: it ended before the launcher began, or belongs to another project",
        f"  no log logs/*.o{task}",
    ]
    (tmp_path / "logs" / "early.o12").write_text(
        "of another job\n" if sge else "of the last task, whose number is 12\n"
    )
    (tmp_path / "logs" / log).write_text("early: no python here\n")
    for wanted in ("12", task):
        why(WhyConfig(run=wanted, within=within))
        said = capsys.readouterr().out.splitlines()
        assert said[-3:] == [f"  log: logs/{log}", "", "early: no python here"]
    for program in programs:  # nobody knows it any more
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "logs" / "early.o12").rename(tmp_path / "logs" / "early.o12.1")
    why(WhyConfig(run="12", within=within))
    assert "  log: logs/early.o12." in capsys.readouterr().out
