"""A complete scheduler in one file: its queue is a directory, and its jobs are processes of this machine.

`python -m tests.jobs.directory_scheduler hpcgender ARGUMENTS` is hpcgender on a machine that has this scheduler. A file
`closed` in the directory lets nothing start; with a file `drained` its nodes take no jobs at present.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgender.commands import HPCGENDER
from jobs.command import SchedulerError
from jobs.scheduler import LIVE, Allocation, Host, Job, Request, Scheduler, Verdict, array_id
from jobs.schedulers import SCHEDULERS
from shard_tools.base.errors import UserError

QUEUE, JOB, RESTARTS = "DIRECTORY_QUEUE", "DIRECTORY_JOB", "DIRECTORY_RESTARTS"
"""Environment variables: the directory, where there is one; in a job its id, and how often it was started before."""

MOST_NODES = 2
_SECONDS = 0.05  # between two looks


class DirectoryScheduler(Scheduler):
    """Jobs that are directories `<queue>/<id>`."""

    name = "directory"
    title = "the directory queue"
    orders_by_success = False

    def is_here(self, environ: Mapping[str, str]) -> bool:
        return QUEUE in environ

    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        if not environ.get(JOB):
            return None
        hosts = (Host(socket.gethostname(), 1),) * read(environ[JOB])["nodes"]
        return Allocation(scheduler=self, job_id=environ[JOB], hosts=hosts)

    def restarts(self, environ: Mapping[str, str]) -> int:
        return int(environ[RESTARTS])

    def is_cancelled(self, allocation: Allocation, stopped_by: str | None) -> bool:
        return (directory(allocation.job_id) / "cancelled").exists()

    def requeue(self, allocation: Allocation, until: float) -> str:
        (directory(allocation.job_id) / "requeue").touch()
        return ""

    def try_on_host(self, host: str) -> str:
        return f"ls {queue()}"

    def check(self, request: Request, record: Path) -> Verdict:
        if request.resources.nodes > MOST_NODES:
            raise UserError(f"{self.title} refuses {request.name}: it has {MOST_NODES} nodes")
        drained = (queue() / "drained").exists()
        return Verdict("" if drained else "at any time", ("not now",) if drained else ())

    def preview(self, request: Request, record: Path) -> str:
        return f"# {request.resources.nodes} nodes\n"

    def submit(
        self, request: Request, record: Path, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
    ) -> tuple[list[str], Path]:
        number = str(1 + max((int(array_id(path.name)) for path in queue().glob("[0-9]*")), default=0))
        ids = [number] if len(arguments) == 1 else [f"{number}_{place}" for place in range(len(arguments))]
        Path(request.logs).mkdir(exist_ok=True)
        before = (*request.after, *request.after_end)
        asked = {"name": request.name, "nodes": request.resources.nodes, "after": before, "at_once": request.at_once}
        for job_id, each in zip(ids, arguments, strict=True):
            directory(job_id).mkdir()
            called = json.dumps([task.__module__, task.__name__, *each])
            command = shlex.join([sys.executable, "-m", __spec__.name, "task", called])
            (directory(job_id) / "script.sh").write_text(f"exec {command}\n")
            log = str(Path(request.log.replace("%j", job_id)).absolute())
            write(job_id, **asked, log=log, state="pending", reason="Waiting")
        for job_id in ids:
            none = subprocess.DEVNULL
            waits = [sys.executable, "-m", __spec__.name, "run", job_id]
            subprocess.Popen(waits, stdin=none, stdout=none, stderr=none, start_new_session=True)
        copy = directory(ids[0]) / "submitted.sh"
        copy.write_text((directory(ids[0]) / "script.sh").read_text())
        return ids, copy

    def query(self) -> dict[str, Job]:
        return {job_id: job for job_id, job in all_jobs().items() if job.state in LIVE}

    def ended(self, job_ids: Collection[str], since: float) -> dict[str, Job]:
        found = {job_id: job for job_id, job in all_jobs().items() if {job_id, array_id(job_id)} & {*job_ids}}
        return {job_id: job for job_id, job in found.items() if job.state not in LIVE}

    def meaning(self, job_id: str, reason: str) -> str:
        return f"nothing starts while there is {queue()}/closed" if reason == "Closed" else ""

    def cancel(self, job_id: str) -> str:
        tasks = [task for task in all_jobs() if job_id in (task, array_id(task))]
        if not tasks:
            raise SchedulerError(f"there is no job {job_id}")
        for task in tasks:
            (directory(task) / "cancelled").touch()
        for task in tasks:
            if (process := read(task).get("process")) and read(task)["state"] == "running":
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.killpg(process, signal.SIGTERM)
        return f"cancelled job {job_id}"


def queue() -> Path:
    """The directory of all jobs."""
    return Path(os.environ[QUEUE])


def directory(job_id: str) -> Path:
    """The directory of one."""
    return queue() / job_id


def read(job_id: str) -> dict[str, Any]:
    """What is known of a job."""
    found: dict[str, Any] = json.loads((directory(job_id) / "job.json").read_text())
    return found


def write(job_id: str, **content: Any) -> None:
    """Adds to what is known of a job."""
    path = directory(job_id) / "job.json"
    known = read(job_id) if path.exists() else {}
    path.with_suffix(".new").write_text(json.dumps({**known, **content}))
    path.with_suffix(".new").replace(path)


def all_jobs() -> dict[str, Job]:
    """All jobs by id."""
    found = {}
    for path in queue().glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):  # it is being submitted
            known = read(path.name)
            found[path.name] = Job(job_id=path.name, **{name: known[name] for name in ("name", "state", "reason")})
    return found


def run_job(job_id: str) -> None:
    """Waits until a job may start, and runs it until it has ended for good."""
    work = directory(job_id)
    restarts = 0
    while True:
        while not (work / "cancelled").exists() and (reason := waiting(job_id)):
            write(job_id, state="pending", reason=reason)
            time.sleep(_SECONDS)
        if (work / "cancelled").exists():
            return write(job_id, state="cancelled", reason="")
        with Path(read(job_id)["log"]).open("ab") as log:
            process = subprocess.Popen(
                ["bash", work / "script.sh"],
                env={**os.environ, JOB: job_id, RESTARTS: str(restarts)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        write(job_id, state="running", reason="", process=process.pid)
        code = process.wait()
        if not (work / "requeue").exists():
            break
        (work / "requeue").unlink()
        restarts += 1
    state = "cancelled" if (work / "cancelled").exists() else "failed" if code else "done"
    return write(job_id, state=state, reason=f"exit code {code}" if code > 0 else f"killed by {-code}" if code else "")


def place(job_id: str) -> int:
    """The number of a task within its array."""
    return int(job_id.partition("_")[2] or 0)


def waiting(job_id: str) -> str:
    """Why a job may not start yet; empty if it may."""
    if (queue() / "closed").exists():
        return "Closed"
    known, alive = read(job_id), [task for task, job in all_jobs().items() if job.state in LIVE]
    if {*known["after"]} & {name for task in alive for name in (task, array_id(task))}:
        return "Waiting"
    before = sum(array_id(task) == array_id(job_id) and place(task) < place(job_id) for task in alive)
    return "Others" if known["at_once"] and before >= known["at_once"] else ""


def main(word: str, *arguments: str) -> None:
    scheduler = DirectoryScheduler()
    SCHEDULERS[scheduler.name] = scheduler
    if word == "run":
        run_job(*arguments)
    elif word == "task":
        module, function, *parameters = json.loads(arguments[0])
        getattr(importlib.import_module(module), function)(*parameters)
    else:
        sys.exit(HPCGENDER.run(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
