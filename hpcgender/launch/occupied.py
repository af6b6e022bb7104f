"""Says before a submission what is at work on the same results already, and what has nothing left to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcgender.status.direct import is_locked, process
from hpcgender.status.runs import ListedRun, Queues, RunRecord, ask, judge_all, unheard
from jobs.records import submissions_of
from jobs.scheduler import array_id
from shard_tools.base.commands import RUNS, Call
from shard_tools.base.errors import UserError


def warnings(call: Call[Any], after: tuple[str, ...] = ()) -> Iterator[str]:
    """What a person should know before the call is submitted, a line each; `after` are the jobs that it waits for.

    UserError if it can only fail: it is to begin what another job will have begun.
    """
    if because := call.command.done(call.options):
        yield because
    results = call.results
    if results == RUNS or call.command.shared(call.options):
        return
    recorded = [RunRecord(run=str(results), submission=submission) for submission in submissions_of(results)]
    queues = ask(recorded) if recorded else Queues(jobs={}, silent={})
    runs = judge_all(recorded, queues)
    for run in runs:
        if error := unheard(run, queues):
            yield f"whether job {run.record.submission.job_id} still works on {results} is unknown: {error}"
    others = list(at_work(results, runs))
    if others and call.command.resume and not getattr(call.options, call.command.resume):
        raise UserError(
            f"{results} is being made by {others[0][1]}: give another name, or "
            f"--{call.command.resume.replace('_', '-')} to go on where that ends"
        )
    for job_id, what in others:
        if not {job_id, array_id(job_id)} & {*after}:
            wait = f": --after {job_id} would wait for it" if job_id else ""
            yield f"{results} is being made by {what}, and what begins meanwhile fails{wait}"


def at_work(results: Path, runs: Sequence[ListedRun]) -> Iterator[tuple[str, str]]:
    """What waits or works on these results, of its runs or a process: ids, empty of a process, and words."""
    alive = [run for run in runs if run.status.alive]
    yield from ((job_id := run.record.submission.job_id, f"job {job_id}, {run.status.state}") for run in alive)
    if not alive and is_locked(results):
        yield "", process(results)
