"""Why runs wait or have failed, by schedulers and logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgender.commands.jobs import WhyConfig
from hpcgender.log_lines import NOT_REQUEUED, NOT_REQUEUED_YET, AttemptLine
from hpcgender.status import failure
from hpcgender.status.why import why
from tests.conftest import Run
from tests.hpcgender.status_records import end, ended_run, make_record, start
from tests.programs import put

ATTEMPT = AttemptLine(command="train", nodes=2, hosts=("node1", "node2"), rendezvous="node1:18890").text() + "\n"
KILLED = "agent on node2: rank 1 failed: killed by SIGKILL (often: out of memory); its log: runs/k/logs/rank-1.log"


def test_why_it_failed_with_the_last_traceback(tmp_path: Path, run: Run) -> None:
    code = "def inner():\n    raise RuntimeError('CUDA out of memory.\\nTried to allocate 2 GiB')\ninner()"
    crash = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False).stderr
    earlier = ATTEMPT + crash.replace("CUDA out of memory", "of the attempt before")
    ended_run(tmp_path, f"{earlier}{ATTEMPT}epoch 1/2 | fine\n{crash}agent on node1: rank 0 failed: exit code 1\n")
    done = run("hpcgender", "jobs", "why", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "of the attempt before" not in done.stdout
    assert done.stdout.splitlines() == [
        "mine: job 999999999 on this machine, attempt 1: failed",
        "  ran on node1,node2",
        "  exit code 1",
        "  memory ran out",
        f"  log: {tmp_path}/runs/mine.o999999999",
        "",
        *crash.splitlines(),
        "",
        "agent on node1: rank 0 failed: exit code 1",
    ]
    listed = run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()[1]
    assert listed.endswith("\texit code 1: RuntimeError: CUDA out of memory.")


def test_why_a_process_was_killed(tmp_path: Path, run: Run) -> None:
    ended_run(tmp_path, f"{ATTEMPT}epoch 1/2 | fine\n{KILLED}\n")
    said = run("hpcgender", "jobs", "why", "mine", cwd=tmp_path).stdout
    assert "  a process was killed by SIGKILL (often: out of memory)\n" in said
    assert said.endswith(f"\n{KILLED}\n")


@pytest.mark.parametrize(
    ("scontrol", "sacct"),
    [
        ("slurm_load_jobs error: Invalid job id specified", "12|FAILED|9:0|node1|None|2026-11-22T22:49:50|train"),
        ("JobId=12 JobState=FAILED Reason=NonZeroExitCode ExitCode=137:0", ""),
    ],
)
def test_how_it_ended_is_said_once(
    scontrol: str,
    sacct: str,
    tmp_path: Path,
    no_scheduler: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The answers are Slurm's own: sacct takes 128 off the exit code of a job whose command was killed."""
    submission = make_record(tmp_path / "runs" / "mine", "12", "slurm", [start(), end(137)])
    Path(submission.log).write_text(f"{ATTEMPT}epoch 1/2 | fine\n{KILLED}\n")
    fails = "echo '{}' >&2; exit 1" if "error" in scontrol else "echo '{}'"
    for name, script in {
        "squeue": "exit 0",
        "scontrol": fails.format(scontrol),
        "sacct": f"echo '{sacct}'" if sacct else "exit 0",
    }.items():
        put(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    why(WhyConfig(run="mine", within=(tmp_path / "runs",)))
    assert capsys.readouterr().out.splitlines() == [
        "mine: job 12 on Slurm, attempt 1: failed",
        "  ran on node1",
        "  killed by SIGKILL (often: out of memory)",
        f"  log: {submission.log}",
        "",
        KILLED,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: Error in thread 0: Resource temporarily unavailable",
        "RuntimeError: can't start new thread",
        "hpcgender train: NVIDIA DALI cannot be imported (libdali.so: failed to map segment from shared object)",
    ],
)
def test_why_a_limit_of_address_space_was_reached(tmp_path: Path, line: str) -> None:
    log = tmp_path / "train.o1"
    log.write_text(f"{ATTEMPT}epoch 1/2 | fine\n{line}\n")
    explained = "\n".join(failure.explain(log))
    assert "a limit of address space or threads was reached: h_vmem limits the former" in explained
    assert "ask for another complex for memory (`memory` in site.toml)" in explained
    log.write_text(f"{ATTEMPT}epoch 1/2 | fine\nRuntimeError: something else\n")
    assert "address space" not in "\n".join(failure.explain(log))


def test_words_of_schedulers_and_commands() -> None:
    text = (
        f"{ATTEMPT}epoch 1/2 | train loss 0.1\n"
        "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-22T22:55:08 DUE TO TIME LIMIT ***\n"
        "hpcgender train: data/shards has no validation images: pack it again with --val 0.1\n"
        f"{NOT_REQUEUED_YET}and asked again until 22:55:20: scontrol requeue 12: scontrol: Unable to contact slurm\n"
        f"{NOT_REQUEUED}3 attempts without progress\n"
    )
    assert failure.messages(text) == text.splitlines()[2:]
    assert failure.cause(text).startswith("hpcgender train: data/shards has no validation images")
    assert failure.last_traceback(text) == ""
    assert failure.cause("") == ""


def test_a_long_traceback_is_cut_in_the_middle_and_a_rank_s_prefix_kept() -> None:
    frames = "".join(f'[rank0]:   File "a.py", line {n}, in f\n[rank0]:     f({n})\n' for n in range(100))
    text = f"before\n[rank0]: Traceback (most recent call last):\n{frames}[rank0]: ValueError: deep\nafter\n"
    lines = failure.last_traceback(text).splitlines()
    assert len(lines) == 41
    assert lines[0] == "[rank0]: Traceback (most recent call last):"
    assert lines[20] == "[rank0]:   ... 162 lines ..."
    assert lines[-1] == "[rank0]: ValueError: deep"
    assert failure.cause(text) == "ValueError: deep"


def test_why_a_job_waits_or_will_never_start(tmp_path: Path, run: Run) -> None:
    """The answers are Slurm's own, of a job whose ancestor failed."""
    make_record(tmp_path / "runs" / "mine", "4", "slurm", log=str(tmp_path / "mine.o4"), after=("1",))
    programs = {
        "squeue": "4|PENDING|5:00|N/A||DependencyNeverSatisfied|dep",
        "scontrol": "JobId=4 JobName=dep JobState=PENDING Dependency=afterok:1(failed) ExitCode=0:0 StartTime=Unknown",
    }
    for name, answer in programs.items():
        put(tmp_path, name, f"echo '{answer}'")
    done = run("hpcgender", "jobs", "why", "mine", cwd=tmp_path, PATH=f"{tmp_path}:/nowhere", SGE_ROOT="")
    assert done.stdout.splitlines() == [
        "mine: job 4 on Slurm: pending",
        "  DependencyNeverSatisfied: a job before it did not succeed, so it will never start: cancel it",
        "  depends on afterok:1(failed)",
    ]


def test_a_requeued_job_does_not_run_where_it_ran(tmp_path: Path, run: Run) -> None:
    """squeue's own words of a job that waits to be started again."""
    make_record(tmp_path / "runs" / "mine", "12", "slurm", [start(1, "node1"), end(99, requeued=True)])
    put(tmp_path, "squeue", "echo '12|PENDING|10:00|2026-11-22T22:55:08||BeginTime|train'")
    said = run("hpcgender", "jobs", "why", "mine", cwd=tmp_path, PATH=f"{tmp_path}:/nowhere", SGE_ROOT="").stdout
    assert said.splitlines()[:2] == ["mine: job 12 on Slurm, attempt 1: pending", "  ran on node1"]
