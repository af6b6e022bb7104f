"""This user's runs: their records, found and named, with what the scheduler says of all of them at once."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpcgender.run_directory import STUDY_TOML, resume_command
from hpcgender.status.direct import DirectRun, direct_runs
from hpcgender.status.direct import named as find_direct
from hpcgender.status.state import Status, judge, read_history
from jobs.command import SchedulerError
from jobs.records import Submission, read_submissions
from jobs.scheduler import LIVE, UNKNOWN, Job, array_id
from jobs.schedulers import SCHEDULERS, named, schedulers_here
from shard_tools.base.errors import UserError, unknown
from shard_tools.base.text import plural, printable

ACCOUNTING_DAYS = 30
"""How long after its submission accounting is asked about a job without an end in its record."""


_NAMED = 3  # records that cannot be read that are named


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A submission, and the name of its run: the directory of its results in short."""

    run: str
    submission: Submission
    study: str = ""
    """The name of the study that it is of, if it is of one."""

    @property
    def results(self) -> Path:
        """The directory of its results."""
        return self.submission.directory.parent.parent


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A record and its status."""

    record: RunRecord
    status: Status


@dataclass(frozen=True, kw_only=True)
class Queues:
    """What the schedulers answered: jobs by scheduler and id, and why one did not answer."""

    jobs: dict[str, dict[str, Job]]
    silent: dict[str, str]


def read_records(within: Iterable[Path]) -> list[RunRecord]:
    """All records below some directories, the oldest first; one line on stderr counts those that cannot be read."""
    found, faults = [], []
    for number, place in enumerate(within):
        submissions, unreadable = read_submissions(place)
        faults += unreadable
        for submission in submissions:
            if submission.scheduler in SCHEDULERS:
                runs = place if number == 0 else None
                study = study_of(place, submission.directory.parent.parent)
                name = _name(runs, study) if study else ""
                found.append(RunRecord(run=_run(runs, submission), submission=submission, study=name))
            else:
                faults.append(f"{submission.directory} has an unknown scheduler, {submission.scheduler!r}")
    if faults:
        faults.sort()
        shown = "; ".join(faults[:_NAMED]) + (f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else "")
        print(f"hpcgender jobs: {plural(len(faults), 'record')} left out: {printable(shown)}", file=sys.stderr)
    return sorted(found, key=lambda record: record.submission.submitted)


def read_direct(within: Iterable[Path], records: Sequence[RunRecord], runs: Sequence[ListedRun]) -> list[DirectRun]:
    """The runs that are in none of the records, or are trained now although none of `runs`, their jobs, is alive."""
    alive = {run.record.results for run in runs if run.status.alive}
    return direct_runs(within, {record.results for record in records}, alive)


def _run(runs: Path | None, submission: Submission) -> str:
    results = submission.directory.parent.parent
    return submission.name if results == runs else _name(runs, results)  # what has no results goes by its job's name


def _name(runs: Path | None, results: Path) -> str:
    return str(results.relative_to(runs) if runs else results)  # within runs/ the run alone


def study_of(place: Path, results: Path) -> Path | None:
    """The directory of the study in `place` that results are of; None if they are of none."""
    below = results.relative_to(place).parts
    return place / below[0] if below and is_study(place / below[0]) else None


@cache
def is_study(directory: Path) -> bool:
    """Whether a directory is that of a study."""
    return (directory / STUDY_TOML).is_file()


def matching(records: Sequence[RunRecord], wanted: str) -> list[RunRecord]:
    """The records that a person means by a run's name, its directory, a job's id or a job's name, the oldest first."""
    directory = Path(wanted).resolve()
    study = study_meant(records, wanted)
    tests = (
        lambda record: record.submission.job_id == wanted,
        lambda record: array_id(record.submission.job_id) == wanted,
        lambda record: study and record.study == study,
        lambda record: record.run == wanted,
        lambda record: directory in (record.results.resolve(), record.submission.directory.resolve()),
        lambda record: record.submission.name == wanted,
    )
    for test in tests:
        if found := [record for record in records if test(record)]:
            return found
    return []


def study_meant(records: Sequence[RunRecord], wanted: str) -> str:
    """The study that a person means by its name or its directory; empty if they mean something else."""
    directory = Path(wanted).resolve()
    below = is_study(directory)
    found = (
        record.study
        for record in records
        if record.study == wanted or (record.study and below and record.results.resolve().is_relative_to(directory))
    )
    return next(found, "")


def no_run(wanted: str, records: Sequence[RunRecord], within: Sequence[Path]) -> UserError:
    """The error for a run that is not there, or for one that only its own process could do this to."""
    direct = read_direct(within, records, ())
    if run := find_direct(direct, wanted):
        end = f"to resume: {resume_command(run.results)}"
        if run.status.alive:
            end = f"it trains in {run.process}, which `kill` ends there"
        return UserError(f"run {run.run} was trained without the launcher, so it has no job and no log: {end}")
    known = sorted({record.run for record in records} | {run.run for run in direct})
    if not known:
        return UserError(f"no run {wanted!r}: there are no runs in {', '.join(map(str, within))}; give --within DIR")
    return unknown("run", wanted, known)


def ask(records: Iterable[RunRecord]) -> Queues:
    """Asks each scheduler that has jobs of these records, or is on this machine, for all jobs of this user at once."""
    needed = {record.submission.scheduler for record in records if not read_history(record.submission.attempts).over}
    needed |= {scheduler.name for scheduler in schedulers_here(os.environ)}
    answers, silent = {}, {}
    for scheduler in filter(lambda scheduler: scheduler.has_queue, map(named, sorted(needed))):
        try:
            answers[scheduler.name] = scheduler.query()
        except SchedulerError as error:  # noqa: PERF203
            silent[scheduler.name] = str(error)
    return Queues(jobs=answers, silent=silent)


def judge_all(records: Sequence[RunRecord], queues: Queues, now: float | None = None) -> list[ListedRun]:
    """The runs with their status; accounting is asked, in one call, about those gone without an end in their record."""
    now = time.time() if now is None else now
    accounted: dict[str, dict[str, Job]] = {}
    for scheduler, jobs in queues.jobs.items():
        gone = {
            record.submission.job_id: record.submission.submitted_at
            for record in records
            if record.submission.scheduler == scheduler
            and record.submission.job_id not in jobs
            and not read_history(record.submission.attempts).settled
        }
        recent = {job_id: since for job_id, since in gone.items() if since > now - 86_400 * ACCOUNTING_DAYS}
        try:
            accounted[scheduler] = named(scheduler).ended(recent, min(recent.values(), default=now))
        except SchedulerError as error:
            queues.silent[scheduler] = str(error)
    runs = []
    for record in records:
        scheduler, job_id = record.submission.scheduler, record.submission.job_id
        queued = queues.jobs.get(scheduler, {}).get(job_id)
        silent = scheduler in queues.silent
        status = judge(record.submission, queued, accounted.get(scheduler, {}).get(job_id), now, silent=silent)
        runs.append(ListedRun(record=record, status=status))
    return runs


def has_ended(run: ListedRun, queues: Queues) -> bool:
    """Whether a run is not going to do anything more; False as long as those who know do not answer."""
    scheduler = run.record.submission.scheduler
    return not run.status.alive and (run.status.state != UNKNOWN or scheduler in queues.jobs)


def unheard(run: ListedRun, queues: Queues) -> str:
    """Why nobody knows whether a run still waits or works, as its scheduler does not answer; empty if that is known."""
    scheduler = run.record.submission.scheduler
    return queues.silent.get(scheduler, "") if run.status.state == UNKNOWN and scheduler not in queues.jobs else ""


def shown(runs: Sequence[ListedRun]) -> list[ListedRun]:
    """The last submission of each run, with all tasks of an array, and those that have not ended."""
    last = {run.record.run: array_id(run.record.submission.job_id) for run in runs}
    return [run for run in runs if run.status.alive or last[run.record.run] == array_id(run.record.submission.job_id)]


def of_array(array: str, states: Iterable[str]) -> str:
    """How many tasks of an array are in which state, before a line on one of them."""
    return f"array {array}: {', '.join(f'{count} {state}' for state, count in Counter(states).items())}; of these"


def choose(
    records: Sequence[RunRecord], wanted: str, within: Sequence[Path], queues: Queues | None = None
) -> tuple[ListedRun, Queues]:
    """The one run that a person means: of its submissions one that runs, or else waits, or else the last.

    UserError if there is none.
    """
    found = matching(records, wanted)
    if not found:
        raise no_run(wanted, records, within)
    queues = queues or ask(found)
    runs = judge_all(found, queues)
    return max(reversed(runs), key=lambda run: (run.status.alive, run.status.state == "running")), queues


def others(records: Sequence[RunRecord], queues: Queues) -> list[tuple[str, Job]]:
    """The user's jobs, or tasks of arrays, that wait or run and have no record here, with their scheduler."""
    known = {(record.submission.scheduler, record.submission.job_id) for record in records}
    return [
        (scheduler, job)
        for scheduler, jobs in queues.jobs.items()
        for job in jobs.values()
        if job.state in LIVE and not known & {(scheduler, job.job_id), (scheduler, array_id(job.job_id))}
    ]
