"""Studies in the list of runs: one line each, and what helps with one that waits or has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hpcgender.commands import PROGRAMS
from hpcgender.status.runs import ListedRun
from jobs.scheduler import LIVE, array_id
from shard_tools.base.commands import find_command
from shard_tools.base.text import plural

_MOST_JOBS = 3  # that a line names
_ORDER = ("running", "stopping", "suspended", "pending", "held")
"""States of a study as long as one of its jobs is in one, the first that any is in."""


_NOUNS = {"train": "training", "study trial": "training", "evaluate": "evaluation", "study result": "result"} | {
    "study": ""
}


def state_of(runs: Sequence[ListedRun]) -> str:
    """The state of a study, from the last jobs of its runs: of what is alive, or else the worst."""
    states = {run.status.state for run in runs}
    alive = [state for state in (*_ORDER, *sorted(LIVE)) if state in states]
    if alive:
        return alive[0]
    return "done" if states == {"done"} else next(iter(sorted(states - {"done", "skipped"})), "skipped")


def counted(runs: Sequence[ListedRun]) -> str:
    """How many jobs of a study are in which state, its trainings and what follows them each by themselves."""
    kinds: dict[str, Counter[str]] = {}
    for run in runs:
        kinds.setdefault(kind_of(run), Counter())[run.status.state] += 1
    return "; ".join(
        f"{plural(sum(states.values()), kind)}: {', '.join(f'{count} {state}' for state, count in states.items())}"
        for kind, states in kinds.items()
        if kind
    )


def kind_of(run: ListedRun) -> str:
    """What a job of a study does, as a noun; empty for the study's own process."""
    words = run.record.submission.command
    command = find_command(PROGRAMS, words)
    return _NOUNS.get(command.name, command.name) if command else words[0]


def jobs_of(runs: Sequence[ListedRun]) -> str:
    """The ids of the jobs and arrays that wait or run, or else of the last; empty for many processes of a machine."""
    shown = [run for run in runs if run.status.alive] or list(runs)
    ids = list(dict.fromkeys(array_id(run.record.submission.job_id) for run in shown))
    return ",".join(ids) if len(ids) <= _MOST_JOBS else ""


def to_explain(runs: Sequence[ListedRun]) -> Iterator[ListedRun]:
    """The jobs of a study that stand for the others: the first that has failed, and the first that waits or runs.

    Or else the last.
    """
    failed = [run for run in runs if not run.status.alive and run.status.state not in ("done", "skipped")]
    alive = [run for run in runs if run.status.alive and kind_of(run)]
    picked = failed[:1] + alive[:1]
    yield from picked or runs[-1:]
