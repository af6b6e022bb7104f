"""The record of the job around this process: found, or made, also for a job that is refused before it begins."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch import SUBMITTED
from jobs import machine, records
from jobs.records import Resources, Submission
from jobs.scheduler import Allocation
from jobs.site import Site
from jobs.sites import stored_site
from shard_tools.base.commands import RUNS, Call, plain_name
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import BAD_INPUT, STORAGE, StorageError, UserError
from shard_tools.base.extras import CODE
from shard_tools.manifest import manifest_sha256


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What a submission by `launch` has passed on to its job; empty in another one."""

    record: str = ""
    """Path of its record, without `-<job id>`."""
    site: Site | None = None
    """The site as it was when the job was submitted."""
    nodes: int = 0
    """How many were asked for, 0 if that is not known; the record may not be written yet when the job starts."""


def read_passed_on() -> Submitted:
    """Takes what a submission has passed on out of the environment, where no other launch is to find it."""
    text = os.environ.pop(SUBMITTED, "")
    if not text:
        return Submitted()
    content = json.loads(text)
    site = stored_site(content["site"], Path(content["record"]))
    # An earlier version, which may have submitted the job, passed on no nodes.
    return Submitted(record=content["record"], site=site, nodes=content.get("nodes", 0))


def begun_with(call: Call[Any], job: Allocation) -> Submission | None:
    """What a job that its scheduler has started again began with; None in the first attempt of one."""
    if not job.scheduler.has_queue or not job.scheduler.restarts(os.environ):
        return None
    record = records.find_record(call.results, job.scheduler.name, job.job_id)
    return records.read_submission(record) if record else None


def find_record(submitted: Submitted, call: Call[Any], job: Allocation) -> Path | None:
    """The record of a job: of its submission, or of an earlier attempt; None if there is none yet."""
    if not job.scheduler.has_queue:
        return None
    if submitted.record:
        record = Path(f"{submitted.record}-{job.job_id}")
        for log in record.glob(f"{job.job_id}_0_log.*"):  # submitit's, which nothing is written to
            log.unlink()
        return record
    found = records.find_record(call.results, job.scheduler.name, job.job_id)
    begun = found and any(event["event"] == "start" for event in records.read_events(found))
    return found if begun else None  # of several commands that are started in one job, another may have been refused


def write_record(
    config: LaunchConfig,
    call: Call[Any] | None,
    job: Allocation,
    site: Site | None,
    limit: float | None,
    name: str = "",
    *,
    procs_per_node: int = 0,
    gpus_per_node: int = 0,
    within: Path | None = None,
) -> Path:
    """Writes the record of a job that a person started with qsub, sbatch or bash, and returns its directory.

    There is no `call` and no `site` if they cannot be read. `name` is the job's, if its scheduler has none. `within` is
    a directory instead of that of the results. UserError if it cannot be written.
    """
    file, text = job.scheduler.submitted(job, os.environ)
    asked = dict(job.scheduler.asked_for(job, os.environ))
    granted = Resources(
        nodes=len(job.hosts),
        procs_per_node=procs_per_node,
        gpus_per_node=gpus_per_node,
        cpus=job.hosts[0].cpus,
        time_min=round((limit - time.time()) / 60, 1) if limit else 0.0,
    )
    argv = tuple(sys.orig_argv)
    results = within or (call.results if call else RUNS)
    directory = results / SUBMISSIONS / f"{records.stamp()}-{job.job_id}"
    submission = Submission(
        name=job.scheduler.job_name(os.environ) or name or (call.job_name if call else plain_name(config.command[0])),
        command=call.words if call else config.command,
        argv=argv,
        script=file,
        scheduler=job.scheduler.name,
        job_id=job.job_id,
        site=(site.plain() if site else {"name": config.site or job.scheduler.name}) | asked,
        resources=granted,
        after=config.ancestors,
        log=log_path(),
        revision=records.revision(CODE),
        manifest=manifest_sha256(call.data) if call else "",
        directory=directory,
        **records.who_and_where(),
    )
    try:
        records.write_submission(submission, text or f"{shlex.join(argv)}\n", records.surroundings(os.environ, CODE))
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror}") from None
    return directory


def note_refusal(
    error: UserError | StorageError,
    config: LaunchConfig,
    job: Allocation,
    record: Path | None = None,
    call: Call[Any] | None = None,
    site: Site | None = None,
) -> None:
    """Records that a job has ended before it began, and why; in the directory of all runs if its own takes no record.

    What a person reads on a terminal needs no record.
    """
    if not job.scheduler.has_queue or config.dry_run or sys.stderr.isatty():
        return
    try:
        record = record or write_refused(config, job, call, site)
        end_before_start(record, call, STORAGE if isinstance(error, StorageError) else BAD_INPUT, str(error))
    except (UserError, OSError) as unwritten:
        print(f"launch: no record of this: {unwritten}", file=sys.stderr)


def write_refused(config: LaunchConfig, job: Allocation, call: Call[Any] | None, site: Site | None) -> Path:
    """Writes the record of a job that is refused; UserError if that is impossible also in the directory of all runs."""
    gpus = len(machine.visible_gpus(os.environ))
    try:
        return write_record(config, call, job, site, None, gpus_per_node=gpus)
    except UserError:
        return write_record(config, call, job, site, None, gpus_per_node=gpus, within=RUNS)


def end_before_start(record: Path, call: Call[Any] | None, code: int, because: str) -> None:
    """Records that an attempt ended before it began, and why."""
    end = {"event": "end", "attempt": None, "stopped_by": None, "requeued": False, "code": code, "because": because}
    records.append_event(record, **end, time=time.time(), progress=call.progress() if call else None)


def log_path() -> str:
    """The file that standard output goes to; empty if it is none."""
    try:
        path = Path("/proc/self/fd/1").readlink()
    except OSError:
        return ""
    return str(path) if path.is_file() else ""
