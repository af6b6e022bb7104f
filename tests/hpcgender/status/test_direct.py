"""`hpcgender jobs` of runs that were trained without the launcher, and of records that cannot be read."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcgender.commands.jobs import CancelConfig, JobsConfig, LogsConfig, ResubmitConfig, WhyConfig
from hpcgender.status.cancel import cancel
from hpcgender.status.direct import direct_runs
from hpcgender.status.logs import show_logs
from hpcgender.status.resubmit import resubmit
from hpcgender.status.table import list_jobs
from hpcgender.status.why import why
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.status_records import end, make_record, metrics, start

HERE = socket.gethostname()


def trained(run: Path, epochs: int, host: str = HERE) -> None:
    """A run of three epochs, of which so many are done, without a record of a submission."""
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "train.lock").write_text(f"process 77 on {host}\n")
    for epoch in range(1, epochs + 1):
        metrics(run, epoch, 3, 0.75, 60.0)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs in every state, one of them training; a machine without schedulers."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("SGE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    trained(runs / "done", 3)
    trained(runs / "begun", 0)
    trained(runs / "elsewhere", 1, "another-host")
    trained(runs / "of_a_paper" / "stopped", 2)
    trained(runs / "training", 1)
    trained(runs / "launched", 3)
    make_record(runs / "launched", "12", "local", [start(), end(0)])
    (runs / "notes").mkdir()
    with (runs / "training" / "train.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield runs


def listed(capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, tuple[str, ...]]:
    list_jobs(JobsConfig(runs=names))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    return {row[0]: tuple(row[1:]) for row in rows}


def test_all_runs_are_listed_however_they_were_started(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert {run: (job, state, epoch, reason) for run, (job, _, state, epoch, *_, reason) in found.items()} == {
        "launched": ("12", "done", "3/3", "-"),
        "begun": ("77", "stopped", "-", "its process ended before the end of its first epoch"),
        "done": ("77", "done", "3/3", "-"),
        "elsewhere": (
            "77",
            "unknown",
            "1/3",
            "whether process 77 on another-host still trains cannot be seen from here",
        ),
        "of_a_paper/stopped": ("77", "stopped", "2/3", "its process ended after epoch 2 of 3"),
        "training": ("77", "running", "1/3", "-"),
    }
    assert found["done"][4] == "75.00%"
    assert set(listed(capsys, "training", "runs/done")) == {"training", "done"}
    list_jobs(JobsConfig(active=True, json=True))
    (entry,) = json.loads(capsys.readouterr().out)["runs"]
    assert (entry["run"], entry["scheduler"], entry["record"]) == ("training", None, None)


def test_a_launched_run_that_goes_on_without_the_launcher_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (runs / "launched" / "train.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        list_jobs(JobsConfig(runs=("launched",)))
    states = [line.split("\t")[3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert states == ["done", "running"]


def test_why_and_logs_answer_what_can_be_known(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why(WhyConfig(run="of_a_paper/stopped"))
    assert capsys.readouterr().out.splitlines() == [
        "of_a_paper/stopped: trained without the launcher: stopped",
        "  its process ended after epoch 2 of 3",
        f"  trained in process 77 on {HERE}",
        "  its output went to where it was started; metrics of each epoch: runs/of_a_paper/stopped/metrics.jsonl",
        "  to resume: hpcgender train --runs runs/of_a_paper --name stopped --resume",
    ]
    why(WhyConfig(run="runs/training"))
    assert f"  trains in process 77 on {HERE}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"run done was trained without the launcher, so it has no job and no log"):
        show_logs(LogsConfig(run="done"))
    (runs / "done" / "logs").mkdir()
    (runs / "done" / "logs" / "rank-1.log").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="without the launcher"):
        cancel(CancelConfig(runs=("training",)))
    with pytest.raises(UserError, match=r"to resume: hpcgender train --name done --resume"):
        resubmit(ResubmitConfig(run="done"))
    with pytest.raises(UserError, match="did you mean begun"):
        why(WhyConfig(run="begn"))


@pytest.mark.parametrize("word", ["logz", "cancle", "wyh", "resubmitt"])
def test_a_mistyped_command_is_answered_with_the_nearest(runs: Path, word: str) -> None:
    with pytest.raises(UserError, match=f"no run and no command '{word}': did you mean hpcgender jobs "):
        list_jobs(JobsConfig(runs=(word,)))


def test_a_record_that_cannot_be_read_is_counted_and_the_rest_is_listed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        broken = make_record(runs / f"broken{number}", "1", "local", [start(), end(0)])
        (broken.directory / "submission.json").write_text("")
    make_record(runs / "of_the_future", "2", "pbs")
    list_jobs(JobsConfig())
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 7
    assert shown.err.startswith("hpcgender jobs: 5 records left out: runs/broken0/submissions/")
    assert shown.err.endswith("; and 2 more\n")
    assert shown.err.count("\n") == 1


def test_a_private_directory_is_counted(runs: Path) -> None:
    powers = "-dac_override,-dac_read_search"  # of root, which may read everything
    plainly = ["/usr/bin/setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"] if os.getuid() == 0 else []
    if plainly and not Path(plainly[0]).exists():
        pytest.skip("root cannot be refused anything without setpriv")
    (runs / "notes").chmod(0)
    command = [*plainly, sys.executable, "-m", "hpcgender", "jobs"]
    done = subprocess.run(command, cwd=runs.parent, capture_output=True, text=True, timeout=60, check=True)
    (runs / "notes").chmod(0o700)
    assert len(done.stdout.splitlines()) == 7
    assert done.stderr == "hpcgender jobs: 1 record left out: cannot read runs/notes: Permission denied\n"


@pytest.mark.parametrize(
    "line", ['{"epoch": "x", "val": [1]}', '{"epoch": NaN, "epochs": null, "eta": "soon"}', "[]", "\0"]
)
def test_metrics_of_another_shape_end_no_list(runs: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "done" / "metrics.jsonl").write_text(f"{line}\n")
    (runs / "launched" / "metrics.jsonl").write_text(f"{line}\n")
    found = listed(capsys)
    assert len(found) == 6
    assert (found["done"][2], found["launched"][2]) == ("stopped", "done")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_a_terminal_cannot_show_ends_no_list(tmp_path: Path, run: Run, encoding: str) -> None:
    for name in (b"caf\xe9", "\u00e9\u20ac".encode(), b"a\nb"):
        trained(tmp_path / "runs" / os.fsdecode(name), 3)
    done = run("hpcgender", "jobs", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[3] for line in done.stdout.splitlines()[1:]] == ["done"] * 3


def test_a_thousand_runs_are_found(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"run{number:04d}").mkdir()
        (tmp_path / f"run{number:04d}" / "train.lock").write_text("")
    assert len(direct_runs([tmp_path], (), ())) == 1000
    recorded = {tmp_path / f"run{number:04d}" for number in range(990)}
    assert len(direct_runs([tmp_path], recorded, ())) == 10
