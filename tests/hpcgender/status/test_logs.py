"""Logs of runs, also while they are written, and of several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcgender.commands.jobs import LogsConfig
from hpcgender.status.logs import Tail, show_logs
from jobs.records import append_event
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.status_records import end, ended_run, make_record, start
from tests.programs import put


def test_a_tail_takes_files_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == b""  # not there yet
    path.write_text("one\n")
    assert tail.read() == b"one\n"
    with path.open("a") as file:
        file.write("two, ")
        file.flush()
        assert tail.read() == b"two, "
        file.write("three\n")
    assert (tail.read(), tail.read()) == (b"three\n", b"")
    path.write_text("anew\n")  # a requeue that cut it
    assert tail.read() == b"anew\n"
    path.rename(tmp_path / "old")
    assert tail.read() == b""
    path.write_text("a second file\n")
    assert tail.read() == b"a second file\n"


@pytest.fixture
def launcher() -> subprocess.Popen[bytes]:
    """What stands for the launcher of a local run."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)", "hpcgender.launch"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_following_through_a_requeue_from_before_the_log_is_there(
    tmp_path: Path, launcher: subprocess.Popen[bytes]
) -> None:
    submission = make_record(tmp_path / "runs" / "mine", str(launcher.pid), "local")
    follower = subprocess.Popen(
        [sys.executable, "-m", "hpcgender", "jobs", "logs", "mine", "--follow"],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(Path(sys.executable).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    printed: list[str] = []
    said: list[str] = []
    assert follower.stdout
    assert follower.stderr
    readers = [
        threading.Thread(target=printed.extend, args=(follower.stdout,)),
        threading.Thread(target=said.extend, args=(follower.stderr,)),
    ]
    try:
        for reader in readers:
            reader.start()
        wait_for(lambda: bool(said))
        log = Path(submission.log)
        with log.open("a") as file:
            file.write("epoch 1/2 | first\n")
        append_event(submission.directory, **start())
        wait_for(lambda: len(printed) == 1)
        append_event(submission.directory, **end(99, requeued=True, stopped_by="time limit"))
        wait_for(lambda: len(said) == 2)
        append_event(submission.directory, **start(2, "node3", "node4"))
        wait_for(lambda: len(said) == 3)
        with log.open("a") as file:
            file.write("epoch 2/2 | second\n")
        append_event(submission.directory, **end(0, 2))
        with log.open("a") as file:
            file.write("done\n")  # what comes last is not lost
        assert follower.wait(60) == 0
    finally:
        launcher.kill()
        launcher.wait()
        follower.kill()
        follower.wait()
        for reader in readers:
            reader.join()
        follower.stdout.close()
        follower.stderr.close()
    assert printed == ["epoch 1/2 | first\n", "epoch 2/2 | second\n", "done\n"]
    assert said == [
        f"hpcgender jobs: waiting for {submission.log}; the run is running\n",
        "hpcgender jobs: attempt 1 is requeued: waiting for the next\n",
        "hpcgender jobs: attempt 2 begins on node3, node4\n",
    ]


def test_logs_of_ranks(tmp_path: Path, run: Run) -> None:
    submission = ended_run(tmp_path, "a\nb\nc\n")
    assert run("hpcgender", "jobs", "logs", "mine", cwd=tmp_path).stdout == "a\nb\nc\n"
    assert run("hpcgender", "jobs", "logs", "mine", "-n", 2, "-f", cwd=tmp_path).stdout == "b\nc\n"
    ranks = submission.directory.parent.parent / "logs"
    ranks.mkdir()
    (ranks / "rank-1.log").write_text("of rank 1\n")
    assert run("hpcgender", "jobs", "logs", "mine", "--rank", 1, cwd=tmp_path).stdout == "of rank 1\n"
    missing = run("hpcgender", "jobs", "logs", "mine", "--rank", 7, cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr == "hpcgender: run mine has no log of rank 7: it has those of ranks 0 and 1\n"


def test_a_run_that_wrote_to_a_terminal(tmp_path: Path, run: Run) -> None:
    make_record(tmp_path / "runs" / "mine", "999999999", "local", [start(), end(0)], log="")
    done = run("hpcgender", "jobs", "logs", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "hpcgender: run mine wrote to a terminal: only other ranks have logs, as --rank 1\n",
    )


def test_a_log_that_is_not_there_is_explained_by_the_state_of_its_run(
    tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = (tmp_path / "runs",)
    submission = make_record(tmp_path / "runs" / "mine", "12", "slurm")
    put(tmp_path, "squeue", "echo '12|PENDING|5:00|N/A||Resources|train'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError) as waits:
        show_logs(LogsConfig(run="mine", within=within))
    assert str(waits.value) == f"no log {submission.log} yet: run mine is pending, Resources; --follow waits for it"
    put(tmp_path, "squeue", "echo '12|CANCELLED|5:00|N/A||Resources|train'")
    for follow in (False, True):
        with pytest.raises(UserError) as ended:
            show_logs(LogsConfig(run="mine", within=within, follow=follow))
        assert str(ended.value) == f"run mine has no log {submission.log}: it is cancelled"
