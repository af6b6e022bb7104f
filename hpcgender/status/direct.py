"""Runs that were trained without the launcher: found by their directories, their state by their lock and metrics."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcgender.run_directory import CONFIG_JSON, LOCK, METRICS, resume_command
from hpcgender.status.state import Status
from jobs.records import directories
from jobs.scheduler import UNKNOWN
from shard_tools.base.files import last_record

_SIGNS = (CONFIG_JSON, METRICS, LOCK)


@dataclass(frozen=True, kw_only=True)
class DirectRun:
    """A run without a record of a submission, or one that is trained now although its last job has ended."""

    run: str
    """Its name as a person gives it: its directory, within the first of the places without that place."""
    results: Path
    process: str
    """The process that trained it last, in words; empty if that is not known."""
    status: Status

    @property
    def pid(self) -> str:
        """The number of that process; empty if it is not known."""
        found = re.match(r"process (\d+) on ", self.process)
        return found[1] if found else ""


def direct_runs(places: Iterable[Path], recorded: Collection[Path], alive: Collection[Path]) -> list[DirectRun]:
    """The runs below some directories that are in no record, or are trained now without a job of theirs.

    `recorded` are the results that there are records of, `alive` those of them whose job waits or runs.
    """
    found = []
    for number, place in enumerate(places):
        for results in _run_directories(place):
            if results in alive or (results in recorded and not is_locked(results)):
                continue
            run = str(results.relative_to(place)) if number == 0 else str(results)
            found.append(DirectRun(run=run, results=results, process=process(results), status=_status(results)))
    return found


def named(runs: Iterable[DirectRun], wanted: str) -> DirectRun | None:
    """The run that a person means by its name or its directory; None if there is none."""
    directory = Path(wanted).resolve()
    return next((run for run in runs if wanted == run.run or directory == run.results.resolve()), None)


def is_locked(results: Path) -> bool | None:
    """Whether a process trains in a run's directory now; None where that cannot be found out."""
    try:
        with (results / LOCK).open() as file:  # which gives the lock back in the same moment
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks, or another user's directory
        return None
    return False


def explain(run: DirectRun) -> Iterator[str]:
    """What is known of the run, in lines."""
    yield f"{run.run}: trained without the launcher: {run.status.state}"
    if run.status.reason:
        yield f"  {run.status.reason}"
    if run.process:
        yield f"  {'trained' if not run.status.alive else 'trains'} in {run.process}"
    yield f"  its output went to where it was started; metrics of each epoch: {run.results / METRICS}"
    if run.status.state == "stopped":
        yield f"  to resume: {resume_command(run.results)}"


def _run_directories(place: Path) -> Iterator[Path]:
    """The directories of runs in `place` and in its directories that are no runs, the oldest name first."""
    for entry in _directories(place, place):
        if _is_run(entry):
            yield entry
        else:
            yield from filter(_is_run, _directories(entry, place))


def _directories(directory: Path, place: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in directories(directory, place) if entry.name[:1] != ".")
    except OSError:  # the list of records has reported it
        return []


def _is_run(directory: Path) -> bool:
    return any(os.path.exists(directory / sign) for sign in _SIGNS)  # noqa: PTH110  # False also where it is private


def process(results: Path) -> str:
    """The process that trained last in a run's directory, in words; empty if that is not known."""
    try:
        return (results / LOCK).read_text(errors="replace").strip()
    except OSError:
        return ""


def _status(results: Path) -> Status:
    record = last_record(results / METRICS) or {}
    epoch, epochs = (record.get(name) if isinstance(record.get(name), int) else None for name in ("epoch", "epochs"))
    locked, here = is_locked(results), f" on {socket.gethostname()}"
    trained_by = process(results)
    if locked:
        return Status(state="running", alive=True)
    if epoch is not None and epoch == epochs:
        return Status(state="done")
    if locked is None or (trained_by and here not in trained_by):
        return Status(state=UNKNOWN, reason=f"whether {trained_by or 'it'} still trains cannot be seen from here")
    how = f"after epoch {epoch} of {epochs}" if epoch is not None else "before the end of its first epoch"
    return Status(state="stopped", reason=f"its process ended {how}")
