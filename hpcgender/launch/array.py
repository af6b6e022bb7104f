"""Submits commands as the tasks of one array job, and writes a record for each beside its own results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.submit import job_arguments, launch_in_job, submitted, to_pass_on
from jobs import records
from jobs.records import Submission
from jobs.scheduler import Request
from jobs.schedulers import named
from shard_tools.base.commands import Call
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from shard_tools.base.extras import CODE
from shard_tools.base.files import write_whole
from shard_tools.manifest import manifest_sha256

SUBMITTING = ".submitting"
"""There while an array is submitted and its records are written: after a kill jobs may be without a record."""


def folder(results: Path, stamp: str) -> Path:
    """Where submitit keeps the functions of an array; hidden, as it is no record. %A is the array's id."""
    return results.absolute() / SUBMISSIONS / f".{stamp}-%A"


def submit_array(
    config: LaunchConfig, calls: Sequence[Call[Any]], wanted: Request, results: Path, stamp: str
) -> list[Submission]:
    """Submits the calls, one as a job and several as an array, and writes their records.

    `results` is the directory of what they do together. UserError if the scheduler does not take them.
    """
    tasks = [(job_arguments(config, call, wanted), to_pass_on(call, wanted, stamp)) for call in calls]
    kept = {"revision": records.revision(CODE), **records.who_and_where()}
    around = records.surroundings(os.environ, CODE)
    manifests = {data: manifest_sha256(data) for data in {call.data for call in calls}}
    mark = results / SUBMISSIONS / SUBMITTING
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_whole(mark, f"{wanted.name}\n".encode())
    ids, file = named(wanted.site.scheduler).submit(wanted, folder(results, stamp), launch_in_job, tasks)
    submissions = [
        submitted(call, wanted, job_id, stamp, {**kept, "manifest": manifests[call.data]})
        for call, job_id in zip(calls, ids, strict=True)
    ]
    script = file.read_text()
    for submission in submissions:
        records.write_submission(submission, script, around)
    file.unlink()
    mark.unlink(missing_ok=True)
    return submissions


def check_whole(results: Path, unrecorded: Sequence[tuple[str, str]]) -> None:
    """Raises UserError if a submission was cut short and left jobs without records: they would be started twice.

    Only for who holds the lock of the results: else a submission may be under way. `unrecorded` are ids and names of
    this user's jobs that wait or run and have no record.
    """
    mark = results / SUBMISSIONS / SUBMITTING
    if not mark.exists():
        return
    name = mark.read_text().strip()
    left = sorted({job_id for job_id, of in unrecorded if of == name})
    if left:
        raise UserError(
            f"an earlier submission of {results} was cut short, and left job {', '.join(left)} ({name}) without "
            f"records: hpcgender jobs cancel {' '.join(left)}, then give the command again; if that is a job of "
            f"another directory, remove {mark} instead"
        )
    mark.unlink()
