"""No scheduler: this machine alone, where the nodes of a job are groups of processes and the job is its launcher."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.command import SchedulerError
from jobs.records import Submission
from jobs.scheduler import UNKNOWN, Allocation, Host, Job, Request, Scheduler, Verdict
from shard_tools.base.errors import UserError

_CLOCK_SECONDS = 5.0  # that a process may seem younger than its record


class Local(Scheduler):
    """This machine."""

    name = "local"
    title = "this machine"
    has_queue = False

    def is_here(self, environ: Mapping[str, str]) -> bool:
        return True

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        here = Host(socket.gethostname(), len(os.sched_getaffinity(0)))
        return Allocation(scheduler=self, job_id=str(os.getpid()), hosts=(here,))

    def is_cancelled(self, allocation: Allocation, stopped_by: str | None) -> bool:
        return stopped_by is not None

    def requeue(self, allocation: Allocation, until: float) -> str:
        return "no scheduler"

    def try_on_host(self, host: str) -> str:
        return f"{sys.executable} -m jobs.agent -h"

    def check(self, request: Request, record: Path) -> Verdict:
        return Verdict("nothing to ask for")

    def preview(self, request: Request, record: Path) -> str:
        raise _no_queue(request)

    def submit(
        self, request: Request, record: Path, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
    ) -> tuple[list[str], Path]:
        raise _no_queue(request)

    def query(self) -> dict[str, Job]:
        return {}

    def ended(self, job_ids: Collection[str], since: float) -> dict[str, Job]:
        return {}

    def cancel(self, job_id: str) -> str:
        try:
            os.kill(int(job_id), signal.SIGTERM)
        except OSError as error:
            raise SchedulerError(f"cannot stop process {job_id}: {error.strerror}") from None
        return f"asked process {job_id} to stop"

    def without_trace(self, submission: Submission) -> tuple[str, str]:
        if submission.host != socket.gethostname():
            return UNKNOWN, f"it ran on {submission.host}: ask there"
        return ("running", "") if launcher_runs(submission) else ("failed", "its launcher was killed")


def launcher_runs(submission: Submission) -> bool:
    """Whether the launcher of a local run is still this machine's process of that number, and not another one."""
    process = Path("/proc", submission.job_id)
    try:
        arguments = (process / "cmdline").read_text(errors="replace").split("\0")
        ours = any(name.startswith("hpcgender.") or Path(name).name == "hpcgender" for name in arguments)
        if not ours or process.stat().st_uid != os.getuid():
            return False
        ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return False
    started = int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return started <= submission.submitted_at + _CLOCK_SECONDS


def _no_queue(request: Request) -> UserError:
    return UserError(f"{request.name}: site {request.site.name} is this machine, which has no queue to submit to")
