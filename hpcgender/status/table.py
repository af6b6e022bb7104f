"""The list of runs: a table on a terminal, tab-separated lines elsewhere, or JSON."""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcgender.commands import HPCGENDER, PROGRAMS
from hpcgender.commands.jobs import JobsConfig
from hpcgender.status import failure, studies
from hpcgender.status.direct import DirectRun
from hpcgender.status.direct import named as find_direct
from hpcgender.status.runs import (
    ListedRun,
    RunRecord,
    ask,
    judge_all,
    matching,
    no_run,
    others,
    read_direct,
    read_records,
    shown,
)
from hpcgender.status.state import BAD_OPTIONS, Status
from jobs.records import Submission, user_name
from jobs.scheduler import WAITING, Job, array_id
from shard_tools.base.commands import Shown, find_command
from shard_tools.base.errors import UserError
from shard_tools.base.text import Table, duration, plural, print_tables, printable

HEADER = ("run", "job", "scheduler", "state", "epoch", "accuracy", "img/s", "eta", "limit", "requeues", "reason")
"""Columns of the list: eta is the time until the work is done, limit the rest of the job's time limit."""

_STYLES = {"running": "green", "done": "dim", "failed": "red", "error": "red"} | dict.fromkeys(
    ("pending", "held", "stopped"), "yellow"
)
_LEFT = frozenset({"job", "scheduler", "state", "reason"})
_SPARE = ("scheduler", "requeues", "limit", "img/s", "eta", "accuracy", "epoch", "reason")  # not: run, job, state
_NAMED = 5  # jobs without a record that are named


def list_jobs(config: JobsConfig) -> None:
    """Prints the list; reports a scheduler that does not answer on stderr. UserError for an unknown run."""
    records = read_records(config.within)
    chosen: list[RunRecord] = []
    for name in config.runs:
        found = matching(records, name)
        if not found and not find_direct(read_direct(config.within, records, ()), name):
            raise _mistyped(name) or no_run(name, records, config.within)
        chosen += [record for record in found if record not in chosen]
    if not config.runs:
        user = user_name()
        chosen = [record for record in records if record.submission.user == user]
    queues = ask(chosen)
    now = time.time()
    runs = judge_all(chosen, queues, now)
    direct = read_direct(config.within, records, runs)
    if config.runs:
        direct = [run for run in direct if any(find_direct([run], name) for name in config.runs)]
    else:
        direct = [run for run in direct if run.results.stat().st_uid == os.getuid()]
    runs = [run for run in (runs if config.all else shown(runs)) if run.status.alive or not config.active]
    folded = {run.record.study for run in runs if run.record.study and not (config.runs or config.all or config.json)}
    listed = [_listed(_with_cause(run), now) for run in runs if run.record.study not in folded]
    listed += [_listed_study(name, [run for run in runs if run.record.study == name], now) for name in sorted(folded)]
    listed += [_listed_direct(run, now) for run in direct if run.status.alive or not config.active]
    rest = [] if config.runs else others(records, queues)
    for error in queues.silent.values():
        print(f"hpcgender jobs: {error}; states are those in the records", file=sys.stderr)
    if config.json:
        content = {"runs": list(map(as_json, listed)), "without_record": [_other_json(*pair) for pair in rest]}
        print(json.dumps(content, indent=1))
        return
    if not sys.stdout.isatty():
        for cells in (HEADER, *map(row, listed)):
            print("\t".join(cells))
    elif listed:
        table = Table(HEADER, tuple(map(row, listed)), left=_LEFT, max_name=None, spare=_SPARE)
        print_tables(table, style=_style)
    else:
        print(f"no runs in {', '.join(map(str, config.within))}: start one with hpcgender train, or hpcgender launch")
    if rest:
        print("\n".join((other_line(rest), *array_hints(rest))), file=sys.stderr)


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


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One line of the list: a job, or a run without one."""

    run: str
    job_id: str
    status: Status
    shown: Shown
    submission: Submission | None = None


def _listed(run: ListedRun, now: float) -> Listed:
    submission = run.record.submission
    command = find_command(PROGRAMS, submission.command)
    found = Shown()
    if command:  # else of another version of the code
        found = _now(command.shown(run.record.results, submission.log, run.status.state == "running", now), run.status)
    return Listed(run=run.record.run, job_id=submission.job_id, status=run.status, shown=found, submission=submission)


def _now(shown: Shown, status: Status) -> Shown:
    """What is shown of a run: of one that does not work no time left, and no speed before it has ended."""
    if status.state == "running":
        return shown
    return replace(shown, images_per_s=None if status.alive else shown.images_per_s, eta=None)


def _listed_study(name: str, runs: Sequence[ListedRun], now: float) -> Listed:
    """A study: of its trainings the best accuracy, and the speed of all together."""
    trainings = [(_listed(run, now).shown, run) for run in runs if studies.kind_of(run) == "training"]
    accuracies = [shown.accuracy for shown, _ in trainings if shown.accuracy is not None]
    speed = sum(shown.images_per_s or 0.0 for shown, run in trainings if run.status.state == "running")
    status = Status(
        state=studies.state_of(runs),
        reason=studies.counted(runs),
        alive=any(run.status.alive for run in runs),
        requeues=sum(run.status.requeues for run in runs),
    )
    return Listed(
        run=name,
        job_id=studies.jobs_of(runs),
        status=status,
        shown=Shown(accuracy=max(accuracies, default=None), images_per_s=speed or None),
        submission=runs[-1].record.submission,
    )


def _listed_direct(run: DirectRun, now: float) -> Listed:
    train = HPCGENDER.find(["train"])
    assert train
    found = _now(train.shown(run.results, "", run.status.alive, now), run.status)
    return Listed(run=run.run, job_id=run.pid, status=run.status, shown=found)


def _mistyped(word: str) -> UserError | None:
    """The error for a word that is no run, but nearly a command below `jobs`; None if it is like none."""
    commands = [command.name.removeprefix("jobs ") for command in HPCGENDER.commands("jobs")]
    near = difflib.get_close_matches(word, commands, n=1)
    return UserError(f"no run and no command {word!r}: did you mean hpcgender jobs {near[0]}?") if near else None


def row(listed: Listed) -> tuple[str, ...]:
    """The cells of a run, `-` for what is unknown."""
    shown, status = listed.shown, listed.status
    epoch = "-"
    if shown.epochs_done is not None:
        epoch = f"{int(10 * shown.epochs_done) / 10:g}/{shown.epochs or '?'}"
    accuracy = "-" if shown.age_mae is None else f"MAE {shown.age_mae:.2f}"
    if shown.accuracy is not None:
        accuracy = f"{shown.accuracy:.2%}"
    cells = (
        listed.run,
        listed.job_id or "-",
        listed.submission.scheduler if listed.submission else "-",
        status.state,
        epoch,
        accuracy,
        "-" if shown.images_per_s is None else f"{shown.images_per_s:.0f}",
        "-" if shown.eta is None else duration(shown.eta),
        "-" if status.left is None else duration(status.left),
        str(status.requeues),
        " ".join(status.reason.split()) or "-",
    )
    return tuple(printable(cell.replace("\t", " ")) for cell in cells)


def as_json(listed: Listed) -> dict[str, Any]:
    """A run as JSON; times in seconds, None is unknown. A run that was not launched has no scheduler."""
    submission, status, shown = listed.submission, listed.status, listed.shown
    return {
        "run": listed.run,
        "job": listed.job_id,
        "name": submission.name if submission else listed.run,
        "scheduler": submission.scheduler if submission else None,
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
        "eta": shown.eta,
        "limit": status.left,
        "submitted": submission.submitted if submission else None,
        "command": list(submission.command) if submission else None,
        "log": submission.log if submission else "",
        "record": str(submission.directory) if submission else None,
    }


def _other_json(scheduler: str, job: Job) -> dict[str, Any]:
    return {"job": job.job_id, "name": job.name, "scheduler": scheduler, "state": job.state, "reason": job.reason}


def other_line(rest: Sequence[tuple[str, Job]]) -> str:
    """One line on jobs without a record: those of other projects, or submitted with qsub or sbatch and pending."""
    counts = Counter(job.state for _, job in rest)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    jobs = {(scheduler, array_id(job.job_id)): job for scheduler, job in reversed(rest)}
    first = [f"{job_id} {job.name}" for (_, job_id), job in reversed(jobs.items())]
    names = ", ".join(first[:_NAMED])
    more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
    return f"without a record here: {states} ({names}{more})"


def array_hints(rest: Sequence[tuple[str, Job]]) -> list[str]:
    """A line on each of the first arrays that have tasks which have not begun: how many, and how to go on."""
    arrays: dict[tuple[str, str], list[Job]] = {}
    for scheduler, job in rest:
        if job.state in WAITING and job.job_id != array_id(job.job_id):
            arrays.setdefault((scheduler, array_id(job.job_id)), []).append(job)
    lines = []
    for (_, array), tasks in list(arrays.items())[:_NAMED]:
        reasons = ", ".join(dict.fromkeys(task.reason for task in tasks if task.reason))
        count = f"{plural(len(tasks), 'task')} not begun" + (f" ({reasons})" if reasons else "")
        one = f"hpcgender jobs cancel {tasks[0].job_id} cancels one"
        lines.append(f"array {array}: {count}: see hpcgender jobs why {array}; {one}")
    return lines
