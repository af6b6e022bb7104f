"""Jobs that have ended without a record here: what their scheduler, its accounting and their log say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hpcgender.status import failure
from hpcgender.status.runs import Queues
from jobs.command import SchedulerError
from jobs.scheduler import Job
from jobs.schedulers import named

LOGS = Path("logs")
"""Where the scripts of this project have their logs."""

_ID = re.compile(r"\d+([._]\d+)?")
_LAST = 5  # lines of a log that has no message


def explain(job_id: str, queues: Queues) -> Iterator[str]:
    """What is known of a job of that id, in lines; none if nobody knows it."""
    if not _ID.fullmatch(job_id):
        return
    found = find(job_id, queues)
    log = find_log(job_id)
    if not found and not log:
        return
    if found:
        scheduler, job = found
        yield f"job {job_id} {job.name} on {named(scheduler).title}: {job.state}"
        yield from (f"  {line}" for line in dict.fromkeys((job.reason, *details(scheduler, job_id))) if line)
    else:
        yield f"job {job_id}: no scheduler here knows it any more"
    yield "  no record here: it ended before the launcher began, or belongs to another project"
    if not log:
        yield f"  no log {LOGS}/*.o{job_id}"
        return
    lines = list(failure.explain(log))
    yield from lines
    if len(lines) == 1:  # its name alone
        yield ""
        yield from failure.last_attempt(log).splitlines()[-_LAST:]


def find(job_id: str, queues: Queues) -> tuple[str, Job] | None:
    """A job that has ended, with its scheduler: from the queue if that still has it, or else from accounting."""
    for scheduler, jobs in queues.jobs.items():
        if job := jobs.get(job_id):
            return scheduler, job
    for scheduler in queues.jobs:
        try:
            if job := named(scheduler).ended([job_id], 0.0).get(job_id):
                return scheduler, job
        except SchedulerError as error:  # noqa: PERF203
            queues.silent[scheduler] = str(error)
    return None


def details(scheduler: str, job_id: str) -> tuple[str, ...]:
    """More lines about a job that has ended, or why there are none."""
    try:
        return named(scheduler).details(job_id)
    except SchedulerError as error:
        return (str(error),)


def find_log(job_id: str) -> Path | None:
    """The log of a job where scripts and launches put it; None if there is none."""
    found = sorted(LOGS.glob(f"*.o{job_id}")) if _ID.fullmatch(job_id) else []
    return found[-1] if found else None
