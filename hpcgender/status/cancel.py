"""Cancelling runs: at their scheduler, or on this machine."""

from __future__ import annotations

import sys
import time

from hpcgender.commands.jobs import CancelConfig
from hpcgender.status.runs import ListedRun, Queues, RunRecord, ask, choose, matching, no_run, others, read_records
from hpcgender.status.state import CANCELLED
from jobs.command import SchedulerError
from jobs.records import append_event
from jobs.scheduler import UNKNOWN, Scheduler
from jobs.schedulers import named


def cancel(config: CancelConfig) -> int:
    """Cancels each run, and returns 1 if a scheduler refused. UserError, before any is, for an unknown one."""
    records = read_records(config.within)
    queues = ask(records)
    runs: list[ListedRun] = []
    unrecorded: list[tuple[str, str]] = []
    for wanted in config.runs:
        if matching(records, wanted):
            runs.append(choose(records, wanted, config.within, queues)[0])
        else:
            unrecorded.append(_in_queue(records, wanted, config, queues))
    failed = False
    for run in runs:
        failed |= not _cancel(run)
    for scheduler, job_id in unrecorded:
        failed |= not _ask(named(scheduler), job_id)
    return int(failed)


def _in_queue(records: list[RunRecord], wanted: str, config: CancelConfig, queues: Queues) -> tuple[str, str]:
    for scheduler, job in others(records, queues):
        if job.job_id == wanted:
            return scheduler, job.job_id
    raise no_run(wanted, records, config.within)


def _cancel(run: ListedRun) -> bool:
    submission, status = run.record.submission, run.status
    if not status.alive and status.state != UNKNOWN:
        print(f"{run.record.run} (job {submission.job_id}) has ended already: {status.state}")
        return True
    scheduler = named(submission.scheduler)
    if not status.alive and not scheduler.has_queue:  # its process may be another one by now
        print(f"hpcgender jobs cancel: {run.record.run}: {status.reason}", file=sys.stderr)
        return False
    if not _ask(scheduler, submission.job_id, f" ({run.record.run})"):
        return False
    append_event(submission.directory, event=CANCELLED, time=time.time())
    return True


def _ask(scheduler: Scheduler, job_id: str, name: str = "") -> bool:
    try:
        done = scheduler.cancel(job_id)
    except SchedulerError as error:
        print(f"hpcgender jobs cancel: {error}", file=sys.stderr)
        return False
    print(f"{done}{name}")
    return True
