"""The list of runs: a table on a terminal, tab-separated lines elsewhere, or JSON."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcgender.commands import PROGRAMS
from hpcgender.commands.jobs import JobsConfig
from hpcgender.status import failure
from hpcgender.status.runs import ListedRun, ask, judge_all, matching, no_run, others, read_records, shown
from hpcgender.status.state import BAD_OPTIONS
from jobs.scheduler import Job
from shard_tools.base.commands import Shown, find_command
from shard_tools.base.text import Table, duration, print_tables

HEADER = ("run", "job", "scheduler", "state", "epoch", "accuracy", "img/s", "eta", "limit", "requeues", "reason")
"""Columns of the list: eta is the time until the work is done, limit the rest of the job's time limit."""

_STYLES = {"running": "green", "done": "dim", "pending": "yellow", "held": "yellow", "failed": "red", "error": "red"}
_LEFT = frozenset({"job", "scheduler", "state", "reason"})
_SPARE = ("scheduler", "requeues", "limit", "img/s", "eta", "accuracy", "epoch", "reason")  # not: run, job, state
_NAMED = 5  # jobs without a record that are named


def list_jobs(config: JobsConfig) -> None:
    """Prints the list; reports a scheduler that does not answer on stderr. UserError for an unknown run."""
    records = read_records(config.within)
    chosen = records
    if config.runs:
        chosen = []
        for name in config.runs:
            found = matching(records, name)
            if not found:
                raise no_run(name, records, config.within)
            chosen += [record for record in found if record not in chosen]
    else:
        user = getpass.getuser()
        chosen = [record for record in records if record.submission.user == user]
    queues = ask(chosen)
    now = time.time()
    runs = judge_all(chosen, queues, now)
    runs = [run for run in (runs if config.all else shown(runs)) if run.status.alive or not config.active]
    listed = [(_with_cause(run), _shown(run, now)) for run in runs]
    rest = [] if config.runs else others(records, queues)
    for error in queues.silent.values():
        print(f"hpcgender jobs: {error}; states are those in the records", file=sys.stderr)
    if config.json:
        content = {"runs": [as_json(*pair) for pair in listed], "without_record": [_other_json(*pair) for pair in rest]}
        print(json.dumps(content, indent=1))
        return
    if not sys.stdout.isatty():
        for cells in (HEADER, *(row(*pair) for pair in listed)):
            print("\t".join(cells))
    elif listed:
        table = Table(HEADER, tuple(row(*pair) for pair in listed), left=_LEFT, max_name=None, spare=_SPARE)
        print_tables(table, style=_style)
    else:
        print(f"no runs in {', '.join(map(str, config.within))}: submit one with hpcgender launch")
    if rest:
        print(other_line(rest), file=sys.stderr)


def _with_cause(run: ListedRun) -> ListedRun:
    # An exit code explains little, the end of the log more.
    status, log = run.status, run.record.submission.log
    explained = not status.reason.startswith(("exit code", "NonZeroExitCode", BAD_OPTIONS))
    if status.state != "failed" or not log or explained:
        return run
    line = failure.cause(failure.last_attempt(Path(log)))
    reason = f"{status.reason}: {line}" if status.reason.startswith("exit code") else line
    return replace(run, status=replace(status, reason=reason)) if line else run


def _style(column: str, cell: str) -> str:
    return _STYLES.get(cell, "") if column == "state" else ""


def _shown(run: ListedRun, now: float) -> Shown:
    submission = run.record.submission
    command = find_command(PROGRAMS, submission.command)
    if command is None:  # of another version of the code
        return Shown()
    return command.shown(run.record.results, submission.log, run.status.state == "running", now)


def row(run: ListedRun, shown: Shown) -> tuple[str, ...]:
    """The cells of a run, `-` for what is unknown."""
    submission, status = run.record.submission, run.status
    epoch = "-"
    if shown.epochs_done is not None:
        epoch = f"{int(10 * shown.epochs_done) / 10:g}/{shown.epochs}"
    accuracy = "-" if shown.age_mae is None else f"MAE {shown.age_mae:.2f}"
    if shown.accuracy is not None:
        accuracy = f"{shown.accuracy:.2%}"
    ended = not status.alive
    cells = (
        run.record.run,
        submission.job_id,
        submission.scheduler,
        status.state,
        epoch,
        accuracy,
        "-" if shown.images_per_s is None else f"{shown.images_per_s:.0f}",
        "-" if shown.eta is None or ended else duration(shown.eta),
        "-" if status.left is None else duration(status.left),
        str(status.requeues),
        " ".join(status.reason.split()) or "-",
    )
    return tuple(cell.replace("\t", " ") for cell in cells)


def as_json(run: ListedRun, shown: Shown) -> dict[str, Any]:
    """A run as JSON; times in seconds, None is unknown."""
    submission, status = run.record.submission, run.status
    return {
        "run": run.record.run,
        "job": submission.job_id,
        "name": submission.name,
        "scheduler": submission.scheduler,
        "state": status.state,
        "reason": status.reason,
        "attempt": status.attempt,
        "requeues": status.requeues,
        "hosts": status.hosts,
        "epoch": shown.epochs_done,
        "epochs": shown.epochs,
        "accuracy": shown.accuracy,
        "age_mae": shown.age_mae,
        "images_per_s": shown.images_per_s,
        "eta": shown.eta if status.alive else None,
        "limit": status.left,
        "submitted": submission.submitted,
        "command": list(submission.command),
        "log": submission.log,
        "record": str(submission.directory),
    }


def _other_json(scheduler: str, job: Job) -> dict[str, Any]:
    return {"job": job.job_id, "name": job.name, "scheduler": scheduler, "state": job.state, "reason": job.reason}


def other_line(rest: Sequence[tuple[str, Job]]) -> str:
    """One line on jobs without a record: those of other projects, or submitted with qsub or sbatch and pending."""
    counts = Counter(job.state for _, job in rest)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    names = ", ".join(f"{job.job_id} {job.name}" for _, job in rest[:_NAMED])
    more = f" and {len(rest) - _NAMED} more" if len(rest) > _NAMED else ""
    return f"without a record here: {states} ({names}{more})"
