"""Cancelling runs: at their scheduler, or on this machine. What is said to be cancelled has been seen to be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hpcgender.commands.jobs import CancelConfig
from hpcgender.status.runs import (
    ListedRun,
    Queues,
    RunRecord,
    ask,
    choose,
    judge_all,
    matching,
    no_run,
    others,
    read_records,
    study_meant,
    unheard,
)
from hpcgender.status.state import CANCELLED
from jobs.command import SchedulerError
from jobs.records import append_event
from jobs.scheduler import LIVE, UNKNOWN, Scheduler, array_id
from jobs.schedulers import named

LOOK_SECONDS = 15.0
"""How long it may take to be seen that a job is being ended, or that its process on this machine has ended."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A job, or a whole array, that is to be cancelled, with the runs that it has records of."""

    scheduler: Scheduler
    job_id: str
    runs: tuple[ListedRun, ...] = ()

    @property
    def names(self) -> str:
        """The names of its runs, as they follow its id."""
        found = dict.fromkeys(run.record.run for run in self.runs)
        return f" ({', '.join(found)})" if found else ""


def cancel(config: CancelConfig) -> int:
    """Cancels each run, and returns 1 if one goes on. UserError, before any is cancelled, for an unknown one."""
    records = read_records(config.within)
    queues = ask(records)
    targets: dict[tuple[str, str, str], Target] = {}
    failed = False
    for wanted in config.runs:
        for target in find(records, wanted, config, queues):
            targets.setdefault((target.scheduler.name, target.job_id, target.names), target)
    asked: list[tuple[Target, str]] = []
    for target in targets.values():
        if ended := has_ended(target):
            print(ended)
            continue
        try:
            asked.append((target, ask_to_end(target)))
        except SchedulerError as error:
            print(f"hpcgender jobs cancel: {error}", file=sys.stderr)
            failed = True
    for target, done in asked:
        failed |= not confirm(target, done)
    return int(failed)


def find(records: list[RunRecord], wanted: str, config: CancelConfig, queues: Queues) -> Iterator[Target]:
    """What a person means: a run's jobs that have not ended, or its last one; a job or an array by its id."""
    recorded = matching(records, wanted)
    alive = tuple(run for run in judge_all(recorded, queues) if run.status.alive or unheard(run, queues))
    waiting = [
        (scheduler, job) for scheduler, job in others(records, queues) if wanted in (job.job_id, array_id(job.job_id))
    ]
    array = wanted not in {record.submission.job_id for record in recorded} and (
        any(array_id(record.submission.job_id) == wanted for record in recorded) or waiting
    )
    if array and (alive or waiting):
        scheduler = waiting[0][0] if waiting else alive[0].record.submission.scheduler
        yield Target(scheduler=named(scheduler), job_id=wanted, runs=alive)
    elif recorded:
        own = set(map(id, recorded))
        elsewhere = {array_id(record.submission.job_id) for record in records if id(record) not in own}
        elsewhere |= {array_id(job.job_id) for _, job in others(records, queues)}  # tasks that may be of any run
        jobs: dict[tuple[str, str], list[ListedRun]] = {}
        if study_meant(recorded, wanted):  # the last first: what waits for others is not to begin when they end
            alive = alive[::-1]
        for run in alive or (choose(recorded, wanted, config.within, queues)[0],):
            submission = run.record.submission
            job_id = array_id(submission.job_id)  # in one call, if every task in the queue is of this run
            if submission.job_id == wanted or job_id in elsewhere or submission.scheduler in queues.silent:
                job_id = submission.job_id
            jobs.setdefault((submission.scheduler, job_id), []).append(run)
        for (scheduler, job_id), runs in jobs.items():
            yield Target(scheduler=named(scheduler), job_id=job_id, runs=tuple(runs))
    else:
        raise no_run(wanted, records, config.within)


def has_ended(target: Target) -> str:
    """What to say of a job that needs no end any more; empty if it does."""
    for run in target.runs:
        if run.status.alive or run.status.state == UNKNOWN:
            return ""
    last = target.runs[-1] if target.runs else None
    return f"{last.record.run} (job {target.job_id}) has ended already: {last.status.state}" if last else ""


def ask_to_end(target: Target) -> str:
    """Asks for the end of a job; what was done. SchedulerError if that is refused."""
    for run in target.runs:
        if not run.status.alive and not target.scheduler.has_queue:  # its process may be another one by now
            raise SchedulerError(f"{run.record.run}: {run.status.reason}")
    return target.scheduler.cancel(target.job_id)


def confirm(target: Target, done: str) -> bool:
    """Says and records that a job is cancelled, if a second look says so; else what it does instead."""
    deadline = time.monotonic() + LOOK_SECONDS
    try:
        while (state := still(target)) and time.monotonic() < deadline:
            time.sleep(0.5)
    except SchedulerError as error:
        print(f"hpcgender jobs cancel: cannot see whether job {target.job_id} ends: {error}", file=sys.stderr)
        return False
    if state and target.scheduler.has_queue:
        print(
            f"hpcgender jobs cancel: job {target.job_id}{target.names} is still {state}, although "
            f"{target.scheduler.title} was asked to end it: see hpcgender jobs why {target.job_id}",
            file=sys.stderr,
        )
        return False
    print(f"{done}{target.names}")
    if not state:  # else its launcher records how it ends
        for run in target.runs:
            append_event(run.record.submission.directory, event=CANCELLED, time=time.time())
    return True


def still(target: Target) -> str:
    """The state of a job that is not being ended; empty if it is, or has ended."""
    if not target.scheduler.has_queue:
        states = [target.scheduler.without_trace(run.record.submission)[0] for run in target.runs]
    else:
        jobs = target.scheduler.query().values()
        states = [job.state for job in jobs if target.job_id in (job.job_id, array_id(job.job_id))]
    return next((state for state in states if state in LIVE - {"stopping"}), "")
