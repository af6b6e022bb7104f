"""When a job goes back into the queue: what its record, its ranks and its scheduler say."""

import signal
import time
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from jobs import records, requeue
from jobs.hosts.supervisor import End
from jobs.nodes import Outcome
from jobs.scheduler import Allocation, Host, Job
from jobs.schedulers import SCHEDULERS
from jobs.sge.scheduler import GridEngine, is_unknown, time_limit
from jobs.slurm.answers import end_time
from jobs.slurm.scheduler import Slurm
from jobs.stopping import TIME_LIMIT, Limit, StopRequests, margin
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from tests.hpcgender.status_records import end, make_record, start
from tests.programs import cat, put, qacct


def event(kind: str, attempt: int, progress: int | None = 0, stopped_by: str | None = None) -> dict[str, Any]:
    return {"event": kind, "attempt": attempt, "progress": progress, "stopped_by": stopped_by, "code": 99}


def attempts(*progress: int | None) -> list[dict[str, Any]]:
    return [event("start", number, done) for number, done in enumerate(progress, start=1)]


@pytest.mark.parametrize(
    ("starts", "now", "idle"),
    [
        ((), 0, 0),
        ((0,), 8, 0),
        ((0,), 0, 1),
        ((0, 8, 8), 8, 2),
        ((0, 8, 8), 9, 0),
        ((None, None, None), None, 3),
    ],
)
def test_attempts_without_progress_are_counted(starts: tuple[int | None, ...], now: int | None, idle: int) -> None:
    assert requeue.idle_attempts(attempts(*starts), now) == idle


@pytest.mark.parametrize(
    ("code", "stopped_by", "wanted"),
    [(99, "SIGTERM", True), (99, None, True), (97, None, False), (0, None, False), (2, None, False), (137, None, True)],
)
def test_saved_work_and_lost_nodes_are_started_again(code: int, stopped_by: str | None, wanted: bool) -> None:
    outcome = Outcome(ends=(End(host="node1", code=code, torn_down=False),), stopped_by=stopped_by)
    assert requeue.wants_requeue(outcome) == wanted


@pytest.mark.parametrize(
    ("deletes_job", "stopped_by", "is_cancelled", "because"),
    [
        (False, None, False, ""),
        (False, "SIGUSR2", True, "cancelled"),
        (True, "SIGUSR2", True, "cancelled"),
        (True, None, True, "Grid Engine deletes a job of which a task was killed"),
        (True, "time limit", False, "Grid Engine deletes a job of which a task was killed"),
    ],
)
def test_why_a_job_is_not_put_back(
    deletes_job: bool, stopped_by: str | None, is_cancelled: bool, because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GridEngine, "is_cancelled", lambda *_: is_cancelled)  # what a scheduler says
    allocation = Allocation(scheduler=SCHEDULERS["sge"], job_id="7", hosts=(Host("node1", 1), Host("node2", 1)))
    lost = End(host="node2", code=137, torn_down=False, deletes_job=deletes_job)
    assert requeue.refusal(allocation, Outcome(ends=(lost,), stopped_by=stopped_by), 0, 3) == because


@pytest.mark.parametrize(
    ("said", "cancelled"),
    [
        ("echo 'JobId=7 JobState=RUNNING Reason=None'", False),
        ("echo 'JobId=7 JobState=COMPLETING Reason=None'", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1", False),
    ],
)
def test_a_controller_that_does_not_answer_has_cancelled_nothing(
    said: str, cancelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "scontrol", said)
    monkeypatch.setenv("PATH", str(tmp_path))
    allocation = Allocation(scheduler=SCHEDULERS["slurm"], job_id="7", hosts=(Host("node1", 1),))
    assert SCHEDULERS["slurm"].is_cancelled(allocation, "SIGTERM") is cancelled


def test_a_job_that_its_scheduler_never_requeues_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slurm, "is_cancelled", lambda *_: False)
    monkeypatch.setattr(Slurm, "cannot_requeue", lambda *_: "Slurm requeues no job of salloc")  # as it says of those
    allocation = Allocation(scheduler=SCHEDULERS["slurm"], job_id="7", hosts=(Host("node1", 1),))
    stopped = End(host="node1", code=99, torn_down=False)
    outcome = Outcome(ends=(stopped,), stopped_by=TIME_LIMIT)
    assert requeue.refusal(allocation, outcome, 0, 3) == "Slurm requeues no job of salloc"


def test_a_job_starts_only_after_success(tmp_path: Path) -> None:
    known: dict[str, list[dict[str, Any]]] = {
        "1": [{"event": "start"}, {"event": "end", "code": 0}],
        "2": [{"event": "start"}, {"event": "end", "code": 2}],
        "3": [{"event": "start"}],
        "4": [{"event": "skipped", "because": "job 2 ended with exit code 2"}],
    }
    for job_id, events in known.items():
        for content in events:
            records.append_event(tmp_path / "run" / SUBMISSIONS / f"20260101T000000-{job_id}", **content)
    (tmp_path / "run" / SUBMISSIONS / "20260101T000000-5").mkdir()
    assert requeue.unmet(SCHEDULERS["sge"], ("1",), [tmp_path]) == ""
    assert requeue.unmet(SCHEDULERS["sge"], ("1", "2"), [tmp_path]) == "job 2 ended with exit code 2"
    assert requeue.unmet(SCHEDULERS["sge"], ("3",), [tmp_path]) == "job 3 was killed or cancelled"
    assert requeue.unmet(SCHEDULERS["sge"], ("4",), [tmp_path]) == "job 4 was skipped"
    assert requeue.unmet(SCHEDULERS["sge"], ("5",), [tmp_path]) == "job 5 never started"


def test_an_array_has_succeeded_once_all_of_its_tasks_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its printed id: what qacct -j has, and records of the tasks that have one."""
    monkeypatch.setattr(requeue, "_ACCOUNTING_SECONDS", 0.0)
    monkeypatch.setattr(requeue, "_LAG_SECONDS", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    put(tmp_path, "qstat", "echo '<job_info><queue_info/><job_info/></job_info>'")
    engine, runs = SCHEDULERS["sge"], tmp_path / "runs"

    def accounted(*codes: int) -> None:
        put(tmp_path, "qacct", cat(qacct(*codes)))

    accounted(0, 0, 0)
    assert requeue.still_to_succeed(engine, ["12"], [runs]) == ()
    assert requeue.unmet(engine, ["12"], [runs]) == ""
    accounted(0, 3, 0)
    with pytest.raises(UserError, match=r"^--after 12: job 12.2 is failed \(exit code 3\), so that nothing will start"):
        requeue.still_to_succeed(engine, ["12"], [runs])
    assert requeue.unmet(engine, ["12"], [runs]) == "job 12.2 is failed: exit code 3"
    assert requeue.unmet(engine, ["12.1"], [runs]) == ""

    make_record(runs / "seed2", "12.2", "sge", [start(), end(0)])  # its script failed after the command
    assert requeue.unmet(engine, ["12"], [runs]) == ""
    accounted()  # late
    assert requeue.unmet(engine, ["12"], [runs]).startswith("job 12 is not in Grid Engine's accounting, which has to ")
    assert requeue.still_to_succeed(engine, ["12"], [runs]) == requeue.still_to_succeed(engine, ["12.2"], [runs]) == ()
    make_record(runs / "seed3", "12.3", "sge", [start(), end(1)])
    assert requeue.unmet(engine, ["12"], [runs]) == "job 12.3 ended with exit code 1"
    with pytest.raises(UserError, match=r"^--after 12: job 12.3 ended with exit code 1, so that nothing will start"):
        requeue.still_to_succeed(engine, ["12"], [runs])
    put(tmp_path, "qacct", "echo 'error: no accounting file' >&2\nexit 1")
    assert requeue.unmet(engine, ["12.1"], [runs]).startswith("job 12.1 cannot be asked about: ")


@pytest.mark.parametrize(
    ("last", "seconds", "because"), [("failed", 20, "job 12.3 is failed: exit code 1"), ("done", 40, "")]
)
def test_the_last_task_of_an_array_may_be_accounted_late(
    last: Literal["failed", "done"], seconds: int, because: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 s after the others; waited for, each time, for longer than accounting lags behind."""
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def ended(self: GridEngine, job_ids: Collection[str], since: float) -> dict[str, Job]:
        found = {f"12.{task}": Job(job_id=f"12.{task}", state="done") for task in (1, 2)} if clock[0] > 101 else {}
        late = {"12.3": Job(job_id="12.3", state=last, reason="exit code 1")} if clock[0] >= 120 else {}
        return found | late

    monkeypatch.setattr(requeue, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(GridEngine, "ended", ended)
    assert requeue.unmet(SCHEDULERS["sge"], ["12"], [tmp_path]) == because
    assert clock[0] == 100 + seconds


def test_a_process_of_the_same_number_is_not_the_job_that_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_record(tmp_path / "runs" / "here", "4711", "local", [start(), end(0)])
    put(tmp_path, "squeue", "echo '4711|RUNNING|4:57|2026-11-22T22:49:50|node1|None|train'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue.still_to_succeed(SCHEDULERS["slurm"], ["4711"], [tmp_path / "runs"]) == ("4711",)
    make_record(tmp_path / "runs" / "there", "4711", "slurm", [start(), end(0)])
    assert requeue.still_to_succeed(SCHEDULERS["slurm"], ["4711"], [tmp_path / "runs"]) == ()


def test_limits_are_read_as_the_schedulers_write_them() -> None:
    assert time_limit("job_number: 1\nhard resource_list:         gpu=1,h_rt=300,h_vmem=2G\n") == 300
    assert time_limit("s_rt                  INFINITY\nh_rt                  24:00:30\n") == 86_430
    assert time_limit("s_rt                  60\nh_rt                  INFINITY\n") is None
    found = end_time("JobId=1 StartTime=2026-11-22T22:58:21 EndTime=2026-11-22T23:58:21 Deadline=N/A")
    assert found == time.mktime((2026, 11, 22, 23, 58, 21, 0, 0, -1))
    assert end_time("JobId=1 EndTime=Unknown Deadline=N/A") is None


def test_a_lost_host_has_no_load() -> None:
    head = "HOSTNAME                ARCH         NCPU NSOC NCOR NTHR  LOAD  MEMTOT  MEMUSE  SWAPTO  SWAPUS\n"
    lost = f"{head}node2                   lx-amd64        2    1    2    2     -   23.5G       -     0.0       -\n"
    assert is_unknown(lost, "node2.cluster.edu")
    assert not is_unknown(lost.replace("2     -", "2  8.51"), "node2")
    assert not is_unknown(lost, "node1")


@pytest.mark.parametrize(("seconds", "before"), [(60, 20), (600, 60), (86_400, 180)])
def test_the_time_to_save_work_grows_with_the_job(seconds: float, before: float) -> None:
    assert margin(seconds) == before


def test_a_limit_that_is_put_off_is_waited_for() -> None:
    ends = [time.time() + 10, time.time() + 1000]
    with StopRequests() as requests:
        requests.watch(Limit(lambda: ends.pop(0) if ends else time.time() + 5, margin=30))
        assert requests.reason is None  # asked again: it is far now
        requests.watch(Limit(lambda: time.time() + 5, margin=30))
        assert requests.reason == TIME_LIMIT


@pytest.mark.parametrize(("seconds", "reason"), [(70, TIME_LIMIT), (100, None)])
def test_ranks_may_be_warned_of_the_limit_by_slurm(seconds: float, reason: str | None) -> None:
    at = time.time() + seconds
    with StopRequests() as requests:
        assert requests.reason_of_ranks is None
        requests.watch(Limit(lambda: at, margin=20))
        assert (requests.reason, requests.reason_of_ranks) == (None, reason)


def test_the_first_signal_is_the_reason() -> None:
    with StopRequests() as requests:
        assert requests.reason is None
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGINT)
        assert requests.reason == "SIGUSR2"
        assert not requests.impatient
        signal.raise_signal(signal.SIGINT)
        assert requests.impatient


def test_what_was_asked_for_before_a_launcher_listens_is_heard() -> None:
    with StopRequests():
        signal.raise_signal(signal.SIGUSR1)
        with StopRequests() as requests:
            assert requests.reason == "SIGUSR1"


def test_a_process_that_has_decided_how_it_ends_is_not_disturbed() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    try:
        with StopRequests(), StopRequests() as requests:
            requests.ignore()
            signal.raise_signal(signal.SIGUSR2)
            assert requests.reason is None
        signal.raise_signal(signal.SIGUSR2)  # would end it
    finally:
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            signal.signal(signal.Signals[name], before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
