"""Submitting a task on the first of several hosts, or an array of them, through a scheduler's submitit executor."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.command import SchedulerError
from jobs.scheduler import Request
from jobs.site import Site
from shard_tools.base.errors import UserError, one_line

UNHEARD = "trap '' USR1 USR2  # of which this shell, or a Python that is starting, would die"
"""The line of a script after which requests to stop do not end it; they are ignored until its launcher listens."""


def task_command(request: Request, record: Path) -> str:
    """The shell's command that runs the submitted task; `record` is the job's directory, with %j for its id."""
    return f"{request.site.launcher_python} -u -m submitit.core._submit {shlex.quote(str(record))}"


def setup(site: Site) -> list[str]:
    """The shell commands before it."""
    return ["export SUBMITIT_LOG_LEVEL=CRITICAL", *site.setup()]  # the log is for the command's own lines


def submit_with(
    executor: Any, title: str, request: Request, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
) -> tuple[list[str], Path]:
    """Submits `task(*each)` for each of `arguments` through an executor of submitit; their ids and the script's file.

    `title` is what a person calls the scheduler. UserError if it does not take the job.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    Path(request.logs).mkdir(parents=True, exist_ok=True)  # Grid Engine would not make it
    try:
        with executor.batch():
            jobs = [executor.submit(task, *each) for each in arguments]
    except (FailedJobError, FailedSubmissionError, SchedulerError) as error:
        raise UserError(f"{title} did not take the job: {one_line(error)}") from None
    except ValueError as error:  # parameters that do not go together
        raise UserError(one_line(error)) from None
    finally:
        for leftover in executor.folder.parent.glob(".submission_file_*.sh"):
            leftover.unlink(missing_ok=True)
    return [str(job.job_id) for job in jobs], Path(jobs[0].paths.submission_file)
