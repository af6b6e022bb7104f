"""Whether a job goes back into the queue, and whether it may run at all."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.command import SchedulerError
from jobs.hosts.processes import how_it_ended
from jobs.nodes import Outcome
from jobs.records import find_anywhere, read_events, succeeded
from jobs.scheduler import LIVE, Allocation, Scheduler
from shard_tools.base.errors import FAILED, REQUEUE, UserError
from shard_tools.base.text import plural

_LAG_SECONDS = 20.0  # more than the time, 15 s as a rule, by which accounting lags behind
_ACCOUNTING_SECONDS = 60.0  # after which it will not have a job any more


def wants_requeue(outcome: Outcome) -> bool:
    """Whether the job should be started again: its ranks saved their work and ended with 99, or a node was lost."""
    if outcome.code == REQUEUE:
        return True
    return outcome.code == FAILED and outcome.lost is not None and outcome.stopped_by != "SIGINT"


def refusal(allocation: Allocation, outcome: Outcome, idle: int, attempts: int) -> str:
    """Why a job that should be started again is not requeued, in a few words; empty if it is requeued.

    `idle` is how many attempts in a row, this one included, achieved nothing.
    """
    deleted = f"{allocation.scheduler.title} deletes a job of which a task was killed"
    is_deleted = any(end.deletes_job for end in outcome.ends)
    if is_deleted and not outcome.stopped_by:  # it calls that cancelled, too
        return deleted
    if allocation.scheduler.is_cancelled(allocation, outcome.stopped_by):  # qdel may be what killed the task
        return "cancelled"
    if is_deleted:
        return deleted
    if idle >= attempts:
        return f"{plural(idle, 'attempt')} without progress"
    return allocation.scheduler.cannot_requeue(allocation)


def idle_attempts(events: Sequence[Mapping[str, Any]], progress: int | None) -> int:
    """How many of the last attempts began where the work stands now, and so achieved nothing.

    With unknown progress (None) every unfinished attempt counts.
    """
    count = 0
    for event in reversed([event for event in events if event["event"] == "start"]):
        if event["progress"] != progress:
            break
        count += 1
    return count


def unmet(scheduler: Scheduler, after: Sequence[str], roots: Iterable[Path]) -> str:
    """Which of the jobs that had to succeed before did not, and what became of it; empty if all did.

    Known from their records below `roots`; for a job, or a task of an array, without one, from the scheduler's
    accounting.
    """
    roots = list(roots)
    for job_id in after:
        events = _recorded(scheduler, job_id, roots)
        for task, of_task in events.items():
            if not succeeded(of_task):
                return f"job {task} {_fate(of_task)}"
        if job_id not in events and (how := _accounted(scheduler, job_id, events)):
            return how
    return ""


def still_to_succeed(scheduler: Scheduler, after: Sequence[str], roots: Iterable[Path]) -> tuple[str, ...]:
    """Those of the jobs before a new one that have not succeeded yet, by their records and by the queue.

    UserError for one that has failed, or that nobody knows: some schedulers would start the new job at once.
    """
    waiting: list[str] = []
    roots = list(roots)
    for job_id in after:
        events = _recorded(scheduler, job_id, roots)
        if succeeded(events.get(job_id, [])):
            continue
        try:
            found = scheduler.find([job_id])
        except SchedulerError as error:
            raise UserError(f"--after {job_id}: {error}") from None
        tasks = [job for task, job in found.items() if not succeeded(events.get(task, []))]
        failed = next((task for task in tasks if task.state not in (*LIVE, "done")), None)
        if failed:
            how = f"job {failed.job_id} is {failed.state}" + (f" ({failed.reason})" if failed.reason else "")
            raise UserError(f"--after {job_id}: {how}, so that nothing will start after it")
        gone = {task: each for task, each in events.items() if task not in found and not succeeded(each)}
        for task, each in gone.items():
            if each and each[-1]["event"] != "start":
                raise UserError(f"--after {job_id}: job {task} {_fate(each)}, so that nothing will start after it")
        if any(task.state in LIVE for task in tasks):
            waiting.append(job_id)
        elif (found or events) and not gone:
            continue
        elif scheduler.orders_by_success:
            raise UserError(
                f"--after {job_id}: {scheduler.title} has no job {job_id} in its queue or accounting, and no record "
                "says that it succeeded: hpcgender jobs --all lists the jobs that are known"
            )
        else:  # accounting may lag behind: the launcher of the new job finds out
            waiting.append(job_id)
    return tuple(waiting)


def _recorded(scheduler: Scheduler, job_id: str, roots: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """The events of a job, or of the tasks of an array, that have a record, by id."""
    return {task: read_events(record) for task, record in find_anywhere(roots, scheduler.name, job_id).items()}


def _fate(events: Sequence[Mapping[str, Any]]) -> str:
    if not events:
        return "never started"
    last = events[-1]
    if last["event"] == "skipped":
        return "was skipped"
    if last["event"] != "end":
        return "was killed or cancelled"
    return how_it_ended(last["code"])


def _accounted(scheduler: Scheduler, job_id: str, but: Collection[str]) -> str:
    """Which job, or task of an array, failed by the scheduler's accounting, and how; empty if none did.

    `but` are the tasks that have succeeded by their records. How many tasks an array has is not known: accounting has
    all of them once no other has come for longer than it lags behind.
    """
    deadline = time.monotonic() + _ACCOUNTING_SECONDS
    tasks, grown = 0, 0.0
    while True:
        try:
            found = scheduler.ended([job_id], 0.0)
        except SchedulerError as error:
            return f"job {job_id} cannot be asked about: {error}"
        others = (task for task in found.values() if task.job_id not in but and task.state != "done")
        if failed := next(others, None):
            return f"job {failed.job_id} is {failed.state}: {failed.reason}"
        now = time.monotonic()
        if len(found) > tasks:
            tasks, grown = len(found), now
        if job_id in found or (found and now >= grown + _LAG_SECONDS):
            return ""
        if not found and now > deadline:
            unknown = "which has to tell of tasks without a record" if but else "and left no record here"
            return f"job {job_id} is not in {scheduler.title}'s accounting, {unknown}"
        time.sleep(2)
