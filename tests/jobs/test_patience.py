"""A scheduler that is down when a job is to be requeued is asked again, until the job's end is near."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch import attempt
from hpcgender.launch.agents import make_layout
from hpcgender.log_lines import NOT_REQUEUED_YET
from jobs import patience
from jobs.records import read_events
from jobs.scheduler import Allocation, Host
from jobs.schedulers import SCHEDULERS, find_allocation
from jobs.sites import read_site
from jobs.stopping import Limit, StopRequests
from shard_tools.base.commands import find_call
from tests.hpcgender.status_records import make_record
from tests.programs import put

STANDBY = "Slurm backup controller in standby mode"
DOWN = "Unable to contact slurm controller (connect failure)"


class Clock:
    """Time that passes in pauses alone."""

    strftime, localtime = staticmethod(time.strftime), staticmethod(time.localtime)

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """The clock of pauses; and only programs of the test are found."""
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    monkeypatch.setenv("PATH", str(tmp_path))
    return made


def fails(folder: Path, program: str, *errors: str, then: str = "exit 0") -> None:
    """Puts a program that says these errors, one each time, and then does something else; `asked` has its calls."""
    lines = [f'echo "$*" >> {folder}/asked', f"number=$(/bin/grep -c . {folder}/asked)", 'case "$number" in']
    lines += [f"{number}) echo '{error}' >&2; exit 1;;" for number, error in enumerate(errors, 1)]
    put(folder, program, "\n".join([*lines, f"*) {then};;", "esac"]))


def requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: float | None) -> tuple[int, dict[str, object]]:
    """The exit code of the attempt of job 7 of Slurm, and its last event."""
    monkeypatch.chdir(tmp_path)
    call = find_call(PROGRAMS, ("train", "--name", "mine"))
    record = make_record(call.results, "7", "slurm").directory
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
    layout = make_layout(LaunchConfig(), call, read_site("slurm"), find_allocation(environ), environ)
    code = attempt.Attempt(call, layout, record).requeue("time limit", end)
    return code, read_events(record)[-1]


def asked(tmp_path: Path) -> int:
    """How often `scontrol requeue` was called."""
    return (tmp_path / "asked").read_text().splitlines().count("requeue 7")


def test_a_controller_that_is_down_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In between, whether it has heard: a controller that does not know its job says nothing of restarts."""
    fails(tmp_path, "scontrol", DOWN, DOWN, STANDBY, STANDBY, STANDBY)
    code, last = requeued(tmp_path, monkeypatch, time.time() + 100)
    assert (code, last["requeued"]) == (99, True)
    assert asked(tmp_path) == 4  # every second error is that of `scontrol show job`
    *waiting, done = capsys.readouterr().err.splitlines()
    assert done == "launch: requeued"
    assert all(line.startswith(f"{NOT_REQUEUED_YET}and asked again until ") for line in waiting)
    assert [line.rpartition(": ")[2] for line in waiting] == [DOWN, STANDBY]  # one line for each state


@pytest.mark.parametrize(("seconds", "times"), [(100.0, 8), (6.0, 3), (0.0, 1), (-100.0, 1)])
def test_it_is_asked_until_the_end_of_the_job_is_near(
    seconds: float,
    times: int,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After 2, 5, 10, 20, 30 and 30 s, and at last when there is just time to record that it was in vain."""
    fails(tmp_path, "scontrol", then=f"echo '{DOWN}' >&2; exit 1")
    end = clock.now + attempt.SPARE_SECONDS + seconds
    code, last = requeued(tmp_path, monkeypatch, end)
    assert (code, last["requeued"]) == (1, False)
    assert last["because"] == f"scontrol requeue 7: scontrol: {DOWN}"
    assert asked(tmp_path) == times
    assert clock.now <= end - attempt.SPARE_SECONDS or times == 1
    *waiting, done = capsys.readouterr().err.splitlines()
    assert done == f"launch: not requeued: scontrol requeue 7: scontrol: {DOWN}"
    assert len(waiting) == (times > 1)


def test_a_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(tmp_path, "scontrol", then="echo 'Requested operation is presently disabled' >&2; exit 1")
    assert requeued(tmp_path, monkeypatch, None)[0] == 1
    assert asked(tmp_path) == 1


def test_what_it_has_done_without_an_answer_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = "Socket timed out on send/recv operation"
    fails(tmp_path, "scontrol", lost, then="echo JobId=7 JobState=COMPLETING Restarts=1")
    assert requeued(tmp_path, monkeypatch, None)[0] == 99
    assert asked(tmp_path) == 1


@pytest.mark.parametrize(("seconds", "says"), [(100.0, ""), (-1.0, "launch: left to exit code 99, ")])
def test_a_qmaster_that_is_down_is_asked_again_by_a_job_of_several_hosts(
    seconds: float,
    says: str,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    down = "error: commlib error: got select error (Connection refused)"
    fails(tmp_path, "qconf", down, down, then="echo load_report_time 00:00:40")
    put(tmp_path, "qalter")
    put(tmp_path, "qstat")
    put(tmp_path, "qmod", f'echo "$*" > {tmp_path}/put-back')
    monkeypatch.setenv("JOB_ID", "12")
    monkeypatch.delenv("SGE_TASK_ID", raising=False)
    allocation = Allocation(scheduler=SCHEDULERS["sge"], job_id="12", hosts=(Host("node1", 1), Host("node2", 1)))
    assert allocation.scheduler.requeue(allocation, clock.now + seconds) == ""
    assert (tmp_path / "put-back").exists() == (not says)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(says or NOT_REQUEUED_YET)
    assert "Connection refused" in said[0]


def test_the_end_of_a_job_is_what_its_scheduler_last_said() -> None:
    """As it cannot say it while it is down."""
    ends = [time.time() + 1000, None]
    with StopRequests() as requests:
        assert requests.end is None
        requests.watch(Limit(lambda: ends.pop(0), margin=2000))
        known = requests.end
        assert requests.reason == "time limit"
        assert requests.end == known is not None
