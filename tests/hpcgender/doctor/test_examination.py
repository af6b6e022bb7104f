"""Checks of `hpcgender doctor`, and the failures of each: the whole examination, and its table."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpcgender.commands.doctor import DoctorConfig
from hpcgender.distributed import Ranks
from hpcgender.doctor import examination, report, speed, together
from hpcgender.doctor.finding import Finding, green, yellow
from hpcgender.doctor.report import Examination
from hpcgender.stop import StopSignal
from jobs.schedulers import find_allocation
from shard_tools.base.errors import UserError
from tests.conftest import REPOSITORY, Run
from tests.programs import put

CPU = torch.device("cpu")
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}
AGENT = """
import os, signal, sys
def forward(*_):
    if sys.argv[1] == "forwards":
        os.kill(os.getppid(), signal.SIGTERM)
signal.signal(signal.SIGUSR1, forward)
print(flush=True)
while True:
    signal.pause()
"""


WHOLE = Examination(
    time=0.0,
    hosts=("node1", "node2"),
    processes=1,
    device="cpu",
    precision="fp32",
    cores_per_process=16.0,
    model="resnet18",
    image_size=64,
    batch_size=16,
    findings=(green("cores", "16 cores"),),
)


@pytest.mark.parametrize(("does", "code"), [("forwards", 99), ("ignores", 1)])
def test_a_job_whose_agent_passes_no_signal_on_is_told(
    does: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent is a program that does as one, or does not; the requeue is of an environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "doctor").mkdir(parents=True)
    monkeypatch.setattr(examination, "STOP_SECONDS", 20.0 if code == 99 else 0.3)
    job, ranks = find_allocation(SLURM), Ranks(0, 1, CPU)
    with subprocess.Popen([sys.executable, "-c", AGENT, does], stdout=subprocess.PIPE) as agent, StopSignal() as stop:
        assert agent.stdout
        agent.stdout.readline()
        monkeypatch.setenv("JOBS_AGENT_PID", str(agent.pid))
        assert examination.interrupt(DoctorConfig(), WHOLE, ranks, stop, job) == code
        agent.kill()
    assert examination.read_interrupted(job) is None  # in a job that was not started again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    saved = examination.read_interrupted(job)
    assert bool(saved) == (code == 99)
    capsys.readouterr()
    if saved:
        note = Path("runs/doctor/interrupted.json")
        whole = note.read_text()
        note.write_text(whole[:-9])
        with pytest.raises(UserError, match=r"interrupted\.json is damaged .*: remove it, and examine again"):
            examination.read_interrupted(job)
        note.write_text(whole)
        assert examination.conclude(saved, ranks) == 0
        assert "signalled, saved, requeued and resumed after" in capsys.readouterr().out
        assert examination.read_interrupted(job) is None
    states = {finding.check: finding.state for finding in report.read(Path("runs/doctor/examination.json")).findings}
    assert states == {"cores": "green", "requeue": "green" if code == 99 else "red"}


@pytest.mark.parametrize(
    ("job", "because"),
    [
        ("BatchFlag=1 Requeue=0", "it was submitted with --no-requeue"),
        ("BatchFlag=0 Requeue=1", "Slurm requeues no job of salloc"),
        ("BatchFlag=1 Requeue=1", "it was not started by the launcher"),
    ],
)
def test_a_job_that_is_not_requeued_is_told_why(
    job: str, because: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an examination that finds nothing else."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "scontrol", f"echo 'JobId=7 JobState=RUNNING {job}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JOBS_AGENT_PID", raising=False)
    monkeypatch.setattr(examination, "of_node", lambda *_: [])
    monkeypatch.setattr(together, "measure", lambda *_: [])
    monkeypatch.setattr(examination, "tried_interruption", lambda: green("signals", ""))
    assert examination.begin(DoctorConfig(json=True), Ranks(0, 1, CPU), find_allocation(SLURM), []) == 0
    capsys.readouterr()
    requeue, signals = report.read(Path("runs/doctor/examination.json")).findings
    assert (requeue.check, requeue.state, requeue.found) == ("requeue", "yellow", because)
    assert "submit trainings with python -m hpcgender.launch" in requeue.advice
    assert signals.check == "signals"


def test_the_table_has_the_worst_first_and_says_where(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    findings = (
        *(Finding(check="cores", state="green", found="16 cores", host=host) for host in ("node1", "node2")),
        Finding(check="GPUs", state="red", found="none", advice="ask for them", host="node2"),
        yellow("loader", "the GPU starves", "more cores"),
    )
    whole = replace(WHOLE, findings=findings, skipped={"your shards": "give --data"})
    assert whole.code == 1
    path = report.write(whole, tmp_path)
    assert report.read(path) == whole
    report.show(whole)
    _, _, *rows, counts, skipped = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [
        ["GPUs", "red", "on", "node2:", "none", "->", "ask", "for", "them"],
        ["loader", "yellow", "the", "GPU", "starves", "->", "more", "cores"],
        ["cores", "green", "16", "cores"],
    ]
    assert counts == "1 green, 1 yellow, 1 red"
    assert skipped == "not examined: your shards: give --data"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("hangs", ["all-reduce red it did not end within 2 s -> NCCL_DEBUG=INFO says", "step green", "signals green"]),
        ("dies", ["processes red", "step green", "cores green"]),
        ("dies-early", ["processes red", "cores green"]),
    ],
)
def test_ranks_that_hang_or_die_are_reported_with_what_was_found_before(
    how: str, says: list[str], run: Run, tmp_path: Path
) -> None:
    program = ("-m", "tests.hpcgender.doctor.hanging_ranks", how)
    options = ("--nproc-per-node=2", f"--rank-log={tmp_path}/runs/doctor/logs/rank-{{rank}}.log")
    done = run(
        "jobs.agent",
        *options,
        *program,
        cwd=tmp_path,
        PYTHONPATH=str(REPOSITORY),
        HPCGENDER_DEVICE="cpu",
        COLUMNS="999",
    )
    assert done.returncode == 1, done.stderr
    said = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for words in says:
        assert any(line.startswith(words) for line in said), done.stdout + done.stderr
    assert ("examined so far: " in done.stdout) == (how != "dies-early")
    assert report.read(tmp_path / "runs" / "doctor" / "examination.json").code == 1


def test_this_machine_is_examined_on_the_spot(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "SECONDS", 0.2)
    monkeypatch.setattr(speed, "STEPS", 1)
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = DoctorConfig(data=shards, model="resnet18", image_size=32, batch_size=8, json=True)
    assert examination.examine(config) == 0
    told = json.loads(capfd.readouterr().out)
    written = report.read(tmp_path / "runs" / "doctor" / "examination.json")
    assert told["hosts"] == list(written.hosts) == [socket.gethostname()]
    assert told["skipped"] == {"all-reduce, clocks, log on other nodes": "one process; give --nodes 2"}
    states = {finding["check"]: finding["state"] for finding in told["findings"]}
    assert "red" not in states.values(), told
    assert {"packages", "GPUs", "scratch", "ports", "shards", "decode", "step", "loader", "signals"} <= set(states)
    assert states["signals"] == "green", told
    assert (written.number("step", "images_per_s") or 0) > 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
