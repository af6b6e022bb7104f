"""Jobs that have ended without a record here: what their scheduler, its accounting and their log say of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpcgender.status import failure
from hpcgender.status.runs import Queues, of_array
from jobs.command import SchedulerError
from jobs.scheduler import Job, array_id
from jobs.schedulers import named, schedulers_here

LOGS = Path("logs")
"""Where the scripts of this project have their logs."""

_ID = re.compile(r"\d+([._]\d+)?")
_LAST = 5  # lines of a log that has no message


def explain(job_id: str, queues: Queues) -> Iterator[str]:
    """What is known of a job of that id, or of the tasks of an array, in lines; none if nobody knows it."""
    if not _ID.fullmatch(job_id):
        return
    scheduler, tasks = find(job_id, queues)
    job = next((task for task in tasks if task.state != "done"), tasks[0]) if tasks else None
    log = find_log(job.job_id if job else job_id)
    if not job and not log:
        return
    if job:
        if len(tasks) > 1:
            yield of_array(job_id, (task.state for task in tasks))
        yield f"job {job.job_id} {job.name} on {named(scheduler).title}: {job.state}"
        yield from (f"  {line}" for line in dict.fromkeys((job.reason, *details(scheduler, job.job_id))) if line)
    else:
        yield f"job {job_id}: no scheduler here knows it any more"
    yield "  no record here: it ended before the launcher began, or belongs to another project"
    if not log:
        yield f"  no log {LOGS}/*.o{job.job_id if job else job_id}"
        return
    lines = list(failure.explain(log))
    yield from lines
    if len(lines) == 1:  # its name alone
        yield ""
        yield from failure.last_attempt(log).splitlines()[-_LAST:]


def find(job_id: str, queues: Queues) -> tuple[str, list[Job]]:
    """A job that has ended, or the tasks of an array, with its scheduler: from the queue, or else from accounting."""
    for scheduler, jobs in queues.jobs.items():
        if job_id in jobs:
            return scheduler, [jobs[job_id]]
    for scheduler, jobs in queues.jobs.items():
        queued = {job.job_id: job for job in jobs.values() if array_id(job.job_id) == job_id}
        try:
            found = named(scheduler).ended([job_id], 0.0) | queued
        except SchedulerError as error:
            queues.silent[scheduler] = str(error)
            found = queued
        if found:
            return scheduler, [found[task] for task in sorted(found, key=task_number)]
    return "", []


def details(scheduler: str, job_id: str) -> tuple[str, ...]:
    """More lines about a job that has ended, or why there are none."""
    try:
        return named(scheduler).details(job_id)
    except SchedulerError as error:
        return (str(error),)


def find_log(job_id: str) -> Path | None:
    """The log of a job, or of a task of an array, where scripts and launches put it; None if there is none."""
    if not _ID.fullmatch(job_id):
        return None
    names = [f"*.o{job_id}", *([f"*.o{job_id}[._]*"] if job_id == array_id(job_id) else [])]
    if job_id != array_id(job_id):
        names += [f"*.o{raw}" for scheduler in schedulers_here(os.environ) if (raw := scheduler.raw_id(job_id))]
    return next((found[-1] for name in names if (found := sorted(LOGS.glob(name)))), None)


def task_number(job_id: str) -> int:
    """The place of a task in its array."""
    return int(re.split(r"[._]", job_id)[-1])
