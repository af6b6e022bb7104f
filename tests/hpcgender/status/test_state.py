"""The state of a run: its record, the queue and the accounting weighed against each other."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcgender.status.state import CANCELLED, judge
from jobs.records import Resources
from jobs.scheduler import Job, State
from jobs.stopping import TIME_LIMIT
from tests.hpcgender.status_records import end, make_record, start

CANCEL = {"event": CANCELLED, "time": 0.0}
BY_US = "by hpcgender jobs cancel"
REQUEUED = (start(), end(99, requeued=True))
TERMINATED = end(1, stopped_by="SIGTERM")
LATE = end(1, stopped_by=TIME_LIMIT)
SKIP = {"event": "skipped", "because": "job 11 ended with exit code 1"}


def queued(state: State, reason: str = "", **more: Any) -> Job:
    return Job(job_id="12", state=state, reason=reason, **more)


OUT_OF_MEMORY = queued("failed", "out of memory", external=True)


@pytest.mark.parametrize(
    ("events", "in_queue", "accounted", "said"),
    [
        ([], queued("pending", "Priority"), None, ("pending", "Priority", True, 0)),
        ([start()], queued("running"), None, ("running", "", True, 0)),
        ([*REQUEUED], queued("pending", "BeginTime"), None, ("pending", "requeued, BeginTime", True, 1)),
        ([*REQUEUED, start(2)], queued("running"), None, ("running", "", True, 1)),
        ([start(), start(2)], queued("running"), None, ("running", "", True, 1)),  # a node was lost
        ([start(), end(0)], queued("running"), None, ("done", "", False, 0)),  # in a moment
        ([start(), end(1)], queued("running"), None, ("stopping", "exit code 1", True, 0)),
        ([start(), TERMINATED], queued("pending"), None, ("pending", "requeued", True, 0)),  # preempted
        ([start(), end(0)], None, None, ("done", "", False, 0)),
        ([start(), end(1)], None, None, ("failed", "exit code 1", False, 0)),
        ([start(), end(137)], None, None, ("failed", "killed by SIGKILL (often: out of memory)", False, 0)),
        ([start(), end(2)], None, None, ("failed", "its input or configuration was refused", False, 0)),
        ([start(), end(1)], queued("failed", "exit code 1"), None, ("failed", "exit code 1", False, 0)),
        ([start(), end(1)], OUT_OF_MEMORY, None, ("failed", "out of memory", False, 0)),
        ([start(), LATE], None, None, ("timeout", "time limit, and it was not requeued", False, 0)),
        ([start(), TERMINATED], None, None, ("cancelled", "by SIGTERM", False, 0)),
        ([start(), CANCEL], None, None, ("cancelled", BY_US, False, 0)),
        ([start(), CANCEL, TERMINATED], None, None, ("cancelled", BY_US, False, 0)),
        ([start(), CANCEL], queued("stopping"), None, ("stopping", "", True, 0)),
        ([CANCEL], None, None, ("cancelled", BY_US, False, 0)),
        ([SKIP], None, None, ("skipped", "job 11 ended with exit code 1", False, 0)),
        ([start()], None, queued("failed", "node lost"), ("failed", "node lost", False, 0)),
        ([start()], None, None, ("unknown", "neither in the queue nor accounted for, and with no end", False, 0)),
        ([], None, None, ("unknown", "not in the queue, and it never started", False, 0)),
        ([], queued("error", "Eqw: no such file"), None, ("error", "Eqw: no such file", True, 0)),
    ],
)  # fmt: skip
def test_a_run_is_in_the_state_that_who_knows_best_says(
    tmp_path: Path,
    events: Sequence[Mapping[str, Any]],
    in_queue: Job | None,
    accounted: Job | None,
    said: tuple[str, str, bool, int],
) -> None:
    submission = make_record(tmp_path / "mine", "12", "slurm", events)
    status = judge(submission, in_queue, accounted, time.time())
    assert (status.state, status.reason, status.alive, status.requeues) == said


def test_an_attempt_before_the_last_says_nothing_of_how_the_last_one_ended(tmp_path: Path) -> None:
    events = [{**start(), "time": 1000.0}, end(99, requeued=True), {**start(2), "time": 2000.0}]
    submission = make_record(tmp_path / "mine", "12", "slurm", events)
    earlier, last = (queued("failed", "exit code 99", start=began) for began in (995.0, 1995.0))
    assert judge(submission, None, earlier, time.time()).state == "unknown"
    assert judge(submission, None, last, time.time()).state == "failed"


def test_the_time_that_is_left_of_the_limit(tmp_path: Path) -> None:
    submission = make_record(tmp_path / "mine", resources=Resources(nodes=1, time_min=60.0))
    assert judge(submission, queued("running", left=297.0), None, 1000.0).left == 297.0
    assert judge(submission, queued("running", start=400.0), None, 1000.0).left == 3000.0  # Grid Engine does not say
    assert judge(submission, queued("pending", start=400.0), None, 1000.0).left is None


def test_a_job_that_has_not_begun_has_run_nowhere(tmp_path: Path) -> None:
    """Although squeue names the nodes of a job in CONFIGURING, and qstat the host of one in `t`."""
    new = make_record(tmp_path / "new")
    assert judge(new, queued("pending", hosts="node1"), None, 1000.0).hosts == ""
    assert judge(new, queued("running", hosts="node1"), None, 1000.0).hosts == "node1"
    assert judge(new, None, queued("failed", hosts="node1"), 1000.0).hosts == "node1"
    again = make_record(tmp_path / "again", events=[start(1, "node2"), end(99, requeued=True)])
    assert judge(again, queued("pending", hosts="node1"), None, 1000.0).hosts == "node2"


def test_a_local_run_lives_as_long_as_its_launcher(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    submission = make_record(tmp_path / "mine", str(sleeper.pid), "local", [start()])
    assert judge(submission, None, None, time.time()).state == "running"
    later = dataclasses.replace(submission, submitted="2020-01-01T00:00:00Z")  # the number was another's then
    assert judge(later, None, None, time.time()).state == "failed"
    other = dataclasses.replace(submission, job_id=str(os.getpid()))  # no launcher
    assert judge(other, None, None, time.time()).state == "failed"
    sleeper.kill()
    sleeper.wait()
    status = judge(submission, None, None, time.time())
    assert (status.state, status.reason) == ("failed", "its launcher was killed")
    elsewhere = dataclasses.replace(submission, host="other")
    assert judge(elsewhere, None, None, time.time()).reason == "it ran on other: ask there"
