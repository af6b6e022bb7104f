"""What state a run is in: its own record, the queue and the accounting, weighed against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.hosts.processes import exit_words
from jobs.records import Submission
from jobs.scheduler import LIVE, UNKNOWN, WAITING, Job
from jobs.schedulers import named
from jobs.stopping import TIME_LIMIT
from shard_tools.base.errors import BAD_INPUT

SKIPPED = "skipped"
"""The state of a job that did not begin because one before it did not succeed."""

BAD_OPTIONS = "its input or configuration was refused"
"""The reason of a run whose command refused what it was given, until its log is looked at."""

CANCELLED = "cancelled"
"""The event that `jobs cancel` appends to a record."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run and why; `alive` if it may still do something; `left` are seconds of its job's time limit."""

    state: str
    reason: str = ""
    alive: bool = False
    attempt: int = 0
    """Times that it has started."""
    requeues: int = 0
    hosts: str = ""
    left: float | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """What the events of a record come to."""

    starts: int
    requeues: int
    hosts: tuple[str, ...]
    """Of the last attempt."""
    last: Mapping[str, Any]
    """The event with which the last attempt ended or was skipped; empty if it has not."""
    cancelled: bool
    """Whether `jobs cancel` was called since the last attempt began."""
    earlier: float
    """When the last attempt but one began, Unix time; 0 if there was none."""

    @property
    def over(self) -> bool:
        """Whether the job has ended for good, by its record."""
        return bool(self.last) and not self.last.get("requeued")

    @property
    def succeeded(self) -> bool:
        """Whether it has done all that it was to do."""
        return self.over and self.last.get("code") == 0

    @property
    def settled(self) -> bool:
        """Whether nobody has to be asked what became of it, once it is not in the queue."""
        return self.over or self.cancelled


def read_history(events: Sequence[Mapping[str, Any]]) -> History:
    """The history of a record's events."""
    starts = requeued = 0
    begun = [0.0, 0.0]
    hosts: tuple[str, ...] = ()
    last: Mapping[str, Any] = {}
    cancelled = False
    for event in events:
        kind = event.get("event")
        if kind == "start":
            starts, hosts, last, cancelled = starts + 1, tuple(event.get("hosts", ())), {}, False
            begun.append(float(event.get("time", 0.0)))
        elif kind in ("end", SKIPPED):
            last = event
            requeued += bool(event.get("requeued"))
        elif kind == CANCELLED:
            cancelled = True
    return History(
        starts=starts,
        requeues=max(requeued, starts - 1, 0),
        hosts=hosts,
        last=last,
        cancelled=cancelled,
        earlier=begun[-2],
    )


def is_earlier(accounted: Job, history: History) -> bool:
    """Whether accounting, which lags behind, has only an attempt before the last one yet."""
    return accounted.start is not None and accounted.start <= history.earlier


def judge(
    submission: Submission, queued: Job | None, accounted: Job | None, now: float, *, silent: bool = False
) -> Status:
    """The status of a submission; `queued` and `accounted` are what the scheduler and its accounting have of it.

    `silent` if one of the two does not answer: that they have nothing says nothing then.

    While the scheduler still has the job, its answer counts; of an ended one the record has more, except that a
    scheduler's reason for ending it (time limit, out of memory, node lost) is what the record cannot know.
    """
    history = read_history(submission.attempts)
    if accounted and is_earlier(accounted, history):
        accounted = None
    state, reason = _state(submission, history, queued, accounted, silent)
    if state == "pending" and history.starts:
        reason = f"requeued, {reason}" if reason else "requeued"
    if state == "held" and not reason and submission.after:
        reason = f"after {', '.join(submission.after)}"
    known = None if state in WAITING else queued or accounted  # one that waits may be meant for hosts already
    left = queued.left if queued else None
    if left is None and state == "running" and queued and queued.start and submission.resources.time_min:
        left = max(0.0, queued.start + 60 * submission.resources.time_min - now)
    return Status(
        state=state,
        reason=reason,
        alive=state in LIVE,
        attempt=history.starts,
        requeues=history.requeues,
        hosts=",".join(history.hosts) or (known.hosts if known else ""),
        left=left,
    )


def _state(
    submission: Submission, history: History, queued: Job | None, accounted: Job | None, silent: bool
) -> tuple[str, str]:
    if history.succeeded:
        return "done", ""
    if queued and queued.state in LIVE:
        if history.over and queued.state == "running":
            return "stopping", _end(history.last)[1]
        return queued.state, queued.reason
    if history.over and history.last["event"] == SKIPPED:
        return SKIPPED, str(history.last.get("because", ""))
    if history.cancelled:
        return "cancelled", "by hpcgender jobs cancel"
    says = next((job for job in (queued, accounted) if job and job.state not in LIVE), None)
    if says and (not history.over or says.state in ("timeout", "cancelled") or says.external):
        return says.state, says.reason
    if history.over:
        return _end(history.last)
    if silent:
        return UNKNOWN, "its scheduler does not answer"
    return named(submission.scheduler).without_trace(submission)


def _end(end: Mapping[str, Any]) -> tuple[str, str]:
    because, stopped_by = str(end.get("because") or ""), str(end.get("stopped_by") or "")
    if stopped_by == TIME_LIMIT:
        return "timeout", because or "time limit, and it was not requeued"
    if stopped_by.startswith("SIG") and because in ("", "cancelled"):
        return "cancelled", f"by {stopped_by}"
    if end.get("code") == BAD_INPUT:
        return "failed", because or BAD_OPTIONS
    code = end.get("code")
    return "failed", because or stopped_by or (exit_words(code) if isinstance(code, int) else "")
