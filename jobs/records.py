"""What is kept of each submission, beside its results: the command, the code, the site, and what became of it.

    <results>/submissions/<UTC yyyymmddThhmmss>-<job id, or pid>/
        submission.json   the fields of Submission
        changes.diff      what the code had besides the git revision
        packages.txt      name==version of every Python package
        modules.txt       the environment modules that were loaded
        job.sh            the script
        attempts.jsonl    a line for each event of the job, written by the launcher inside it: start and end of an
                          attempt, or skipped if a job before it failed

A job that is requeued keeps its id, and so its record. The launcher or the submission, whichever is first,
makes the directory; the record exists once its submission.json does.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.documents import parse_json, restored
from shard_tools.base.errors import UserError
from shard_tools.base.files import write_whole
from shard_tools.base.parsing import load_json
from shard_tools.base.text import utc

_SUBMISSION, _ATTEMPTS = "submission.json", "attempts.jsonl"
_DEPTH = 4  # RUNS/NAME/evaluations/DATA-SPLIT/submissions
_WITHOUT = frozenset({"checkpoints", "tensorboard", "wandb", "mlruns", "logs"})  # hold no results of commands
_GIT_SECONDS = 30
_MAKING_SECONDS = 600  # that a submission may take to write its record


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job asks for, or was granted. 0 is unknown, or left to the scheduler."""

    nodes: int = 1
    procs_per_node: int = 0
    gpus_per_node: int = 0
    cpus: int = 0
    """Cores on each node."""
    mem: float = 0.0
    """GB on each node."""
    time_min: float = 0.0
    """Time limit in minutes."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission, and the directory of its record."""

    name: str
    """The job's name."""
    command: tuple[str, ...]
    """What runs, such as `train --name mine`."""
    argv: tuple[str, ...]
    """The whole command line that was given."""
    script: str
    """The file that was submitted, if a person did so with qsub, sbatch or bash."""
    scheduler: str
    """Its name, such as slurm."""
    job_id: str
    """The scheduler's, or the launcher's pid."""
    site: Mapping[str, Any]
    """The site's name and its settings."""
    resources: Resources
    after: tuple[str, ...]
    """Ids of the jobs that must succeed before."""
    log: str
    """Absolute path of the job's log; empty if it goes to a terminal."""
    cwd: str
    user: str
    host: str
    submitted: str
    """UTC, ISO 8601."""
    revision: str
    """The git revision of the code, with + if it was changed since."""
    manifest: str
    """SHA-256 of the data set's manifest, if the command reads one."""
    directory: Path

    @property
    def submitted_at(self) -> float:
        """When it was submitted, in Unix time."""
        text = self.submitted.replace("Z", "+00:00")  # which Python 3.10 does not read
        return datetime.fromisoformat(text).astimezone(timezone.utc).timestamp()

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        """The events of the job so far, in order; a line that is torn is left out."""
        return read_events(self.directory)


def stamp(now: float | None = None) -> str:
    """The time as a record's name begins with it."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))


def find_record(results: Path, scheduler: str, job_id: str) -> Path | None:
    """The record of a scheduler's job among those of a directory of results; UserError if it cannot be read."""
    found = sorted((results / SUBMISSIONS).glob(f"*T*-{job_id}"), reverse=True)
    return next((record for record in found if is_of(record, scheduler)), None)


def find_anywhere(roots: Iterable[Path], scheduler: str, job_id: str) -> dict[str, Path]:
    """The newest record of a scheduler's job, or of each task of an array, below some directories, by its id.

    UserError if one cannot be read.
    """
    wanted = re.compile(rf"{re.escape(job_id)}([._]\d+)?")
    found: dict[str, Path] = {}
    for root in roots:
        for record in _records(root, root, _DEPTH, []):
            task = record.name.partition("-")[2]
            if not wanted.fullmatch(task) or (task in found and record.name <= found[task].name):
                continue
            if is_of(record, scheduler):
                found[task] = record
    return found


def is_of(record: Path, scheduler: str) -> bool:
    """Whether a record is of a job of a scheduler: a process of this machine may have the same number.

    One that is being made counts, too.
    """
    submission = read_submission(record)
    return not submission or submission.scheduler == scheduler


def surroundings(environ: Mapping[str, str], code: Path) -> dict[str, str]:
    """The files of a record, name and text, that say what code and packages run; `code` is a directory of it."""
    modules = [name for name in environ.get("LOADEDMODULES", "").split(":") if name]
    return {
        "changes.diff": changes(code),
        "packages.txt": "".join(f"{line}\n" for line in packages()),
        "modules.txt": "".join(f"{name}\n" for name in modules),
    }


def write_submission(submission: Submission, script: str, around: Mapping[str, str]) -> None:
    """Writes a record; `around` are its `surroundings`, `script` the text of what was submitted."""
    directory = submission.directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"job.sh": script, **around}.items():
        (directory / name).write_text(text)
    content = {name: value for name, value in asdict(submission).items() if name != "directory"}
    text = json.dumps(content, indent=1) + "\n"
    write_whole(directory / _SUBMISSION, text.encode())  # last: with it the record exists


def append_event(record: Path, **event: Any) -> None:
    """Appends an event to a record's attempts, on disk when this returns."""
    record.mkdir(parents=True, exist_ok=True)
    with (record / _ATTEMPTS).open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a kill has torn the line before
                file.write(b"\n")
        file.write(json.dumps(event).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_events(record: Path) -> list[dict[str, Any]]:
    """The events of a record; none if there are none, and without a line that a kill has torn."""
    try:
        text = (record / _ATTEMPTS).read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [event for event in map(_event, text.splitlines()) if event]


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = load_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    return event if isinstance(event.get("hosts", []), list) else {**event, "hosts": []}


def succeeded(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last thing known of a job is that it ended well."""
    return bool(events) and events[-1]["event"] == "end" and events[-1]["code"] == 0


def read_submissions(root: Path) -> tuple[list[Submission], list[str]]:
    """All submissions below `root`, such as runs/, the oldest first; and a line for each that cannot be read.

    Their events have been read, too.
    """
    found: list[Submission] = []
    faults: list[str] = []
    for record in _records(root, root, _DEPTH, faults):
        submission = _read_or_report(record, faults)
        found += [submission] if submission else []
    return sorted(found, key=lambda submission: (submission.submitted, submission.directory.name)), faults


def submissions_of(results: Path) -> list[Submission]:
    """The submissions whose results are in a directory, the oldest first, without those that cannot be read."""
    faults: list[str] = []
    found = [_read_or_report(record, faults) for record in sorted((results / SUBMISSIONS).glob("[!.]*"))]
    return [submission for submission in found if submission]


def _read_or_report(record: Path, faults: list[str]) -> Submission | None:
    try:
        submission = read_submission(record)
        if submission:
            submission.attempts  # noqa: B018  # reads them
        elif record.is_dir() and time.time() - record.stat().st_mtime > _MAKING_SECONDS:
            faults.append(f"{record} has no {_SUBMISSION}")
    except UserError as error:
        faults.append(str(error))
    except OSError as error:
        faults.append(f"cannot read {error.filename or record}: {error.strerror}")
    else:
        return submission
    return None


def read_submission(record: Path) -> Submission | None:
    """One submission; None while its record is being made. UserError if it cannot be read."""
    path, again = record / _SUBMISSION, f"it is no record of a submission, remove {record}"
    if not path.is_file():
        return None
    content = parse_json(path.read_bytes(), path, again)
    # What a later version added is no reason to refuse the lists of all runs.
    known = {field.name: content[field.name] for field in fields(Submission) if field.name in content}
    found = restored(Submission, {**known, "directory": str(record)}, path, again)
    try:
        found.submitted_at  # noqa: B018  # fails if it is no time
    except ValueError:
        raise UserError(f"{path} is damaged (submitted: {found.submitted!r} is no time): {again}") from None
    return found


def directories(directory: Path, root: Path) -> list[os.DirEntry[str]]:
    """The directories in one below `root`, and links to others, but to none in `root` or above: those are met anyway.

    Raises OSError if it cannot be read.
    """

    def leads_back(entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return False
        target = Path(entry.path).resolve()
        return target.is_relative_to(root.resolve()) or directory.resolve().is_relative_to(target)

    return [entry for entry in os.scandir(directory) if entry.is_dir() and not leads_back(entry)]


def _records(directory: Path, root: Path, depth: int, faults: list[str]) -> Iterator[Path]:
    """The records below a directory of `root`; a line in `faults` for each directory that cannot be read."""
    try:
        for entry in directories(directory, root):
            if entry.name == SUBMISSIONS:
                yield from (Path(entry.path, name) for name in os.listdir(entry.path) if name[:1] != ".")  # noqa: PTH208
            elif depth > 0 and entry.name not in _WITHOUT and entry.name[:1] != ".":
                yield from _records(Path(entry.path), root, depth - 1, faults)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        faults.append(f"cannot read {error.filename or directory}: {error.strerror}")


def revision(code: Path) -> str:
    """The commit that the code in a directory is at, with + if it was changed since; empty outside a checkout."""
    return _git(code, "describe", "--always", "--abbrev=40", "--dirty=+").strip()


def changes(code: Path) -> str:
    """What the code has besides its commit, as a diff; new files by name only."""
    new = _git(code, "ls-files", "--others", "--exclude-standard", "--full-name", ":/")
    return _git(code, "diff", "HEAD") + "".join(f"new file: {name}\n" for name in new.splitlines())


def _git(code: Path, *arguments: str) -> str:
    own = {**os.environ, "GIT_CEILING_DIRECTORIES": str(code.parent)}  # not a checkout that an installation lies in
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=code, env=own, capture_output=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout: an installed package
        return ""
    return done.stdout.decode(errors="replace")


def packages() -> list[str]:
    """`name==version` of every package that this Python can import, and the Python itself."""
    named = {f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()}
    return [f"python=={sys.version.split()[0]}", *sorted(named, key=str.lower)]


def user_name() -> str:
    """This user's name, or number where it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def who_and_where() -> dict[str, str]:
    """The fields of a submission that this process and the moment give."""
    return {
        "cwd": str(Path.cwd()),
        "user": user_name(),
        "host": socket.gethostname(),
        "submitted": utc(),
    }
