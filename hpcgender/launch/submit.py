"""Submits commands as jobs, each after the one before, and writes their records."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import JobConfig, LaunchConfig, minutes
from hpcgender.launch import SUBMITTED
from hpcgender.launch.agents import check_shared
from hpcgender.launch.attempt import roots
from hpcgender.launch.occupied import warnings
from hpcgender.log_lines import LAUNCH
from jobs import records, requeue
from jobs.records import Resources, Submission
from jobs.scheduler import Request
from jobs.schedulers import named
from jobs.site import Site
from jobs.stopping import StopRequests
from shard_tools.base.commands import Call, plain_name
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from shard_tools.base.extras import CODE
from shard_tools.manifest import manifest_sha256

_PLACEHOLDER = re.compile("%[jtAa]")


def submit_all(config: LaunchConfig, calls: list[Call[Any]], site: Site) -> int:
    """Submits the commands of a chain, or with --dry-run prints their scripts.

    All are checked before any is submitted. Raises UserError, with the scheduler's message, if one could never run.
    """
    stamp = records.stamp()
    requests = [request(config, call, site, first=call is calls[0]) for call in calls]
    pairs = [(wanted, record_of(call, stamp)) for wanted, call in zip(requests, calls, strict=True)]
    scheduler = named(site.scheduler)
    if config.dry_run:
        print("\n".join(scheduler.preview(*pair) for pair in pairs), end="")
        return 0
    before = requeue.still_to_succeed(scheduler, config.ancestors, roots(calls[0]))
    requests[0] = replace(requests[0], after=before)
    pairs[0] = (requests[0], pairs[0][1])
    for call in calls:
        for warning in warnings(call, before):
            print(f"{LAUNCH}{warning}", file=sys.stderr)
    say_once((f"{LAUNCH}{pair[0].name}", scheduler.check(*pair).warnings) for pair in pairs)
    submitted: list[str] = []
    for call, wanted in zip(calls, requests, strict=True):
        try:
            submission = submit(config, call, wanted, before, stamp)
        except (UserError, OSError) as error:
            so_far = f"; submitted before it: {', '.join(submitted)}" if submitted else ""
            raise UserError(f"{wanted.name}: {error}{so_far}") from None
        submitted.append(submission.job_id)
        before = (submission.job_id,)
        after = f" after {', '.join(submission.after)}" if submission.after else ""
        tail = f"tail -F {shlex.quote(os.path.relpath(submission.log))}"
        print(f"job {submission.job_id} {submission.name}{after}: {tail}")
    return 0


def say_once(told: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Prints what each should know, after its name, once all are asked; what several should know, of the first."""
    first: dict[str, str] = {}
    for name, warnings_of in told:
        first |= {warning: name for warning in warnings_of if warning not in first}
    for warning, name in first.items():
        print(f"{name}: {warning}", file=sys.stderr)


def request(config: LaunchConfig, call: Call[Any], site: Site, first: bool = True) -> Request:
    """What to ask the scheduler for; the jobs of a chain after the first ask for as much of it as they can use."""
    distributed = call.command.distributed
    if first:
        check_shared(config, call)
    gpus = config.gpus_per_node if config.gpus_per_node is not None and (distributed or first) else None
    wanted = resources(config, site, gpus=int(distributed) if gpus is None else gpus)
    if distributed:
        call.command.check_ranks(call.options, wanted.nodes * wanted.procs_per_node)
    return Request(
        name=plain_name(config.job_name) if config.job_name and first else call.job_name,
        site=site,
        resources=wanted if distributed else replace(wanted, nodes=1, procs_per_node=1),
        after=config.ancestors if first else (),
    )


def resources(config: JobConfig, site: Site, gpus: int) -> Resources:
    """The options, with the site's settings for those that are not given."""
    return Resources(
        nodes=config.nodes or 1,
        procs_per_node=config.procs_per_node or max(1, gpus),
        gpus_per_node=gpus,
        cpus=config.cpus or site.cpus_per_node,
        mem=config.mem or site.memory_gb,
        time_min=minutes(config.time, "--time") or minutes(site.time, f"site {site.name}: time"),
    )


def record_of(call: Call[Any], stamp: str) -> Path:
    """The record of a job whose id is not known yet, as submitit takes it; UserError if it cannot."""
    results = call.results.absolute()
    if _PLACEHOLDER.search(str(results)):
        raise UserError(f"{results}: %j, %t, %A and %a have a meaning in the paths of jobs: give another name")
    return results / SUBMISSIONS / f"{stamp}-%j"


def submit(config: LaunchConfig, call: Call[Any], wanted: Request, after: tuple[str, ...], stamp: str) -> Submission:
    """Submits one job and writes its record."""
    wanted = replace(wanted, after=after)
    kept = {"revision": records.revision(CODE), "manifest": manifest_sha256(call.data), **records.who_and_where()}
    task = (job_arguments(config, call, wanted), to_pass_on(call, wanted, stamp))
    (job_id,), file = named(wanted.site.scheduler).submit(wanted, record_of(call, stamp), launch_in_job, [task])
    submission = submitted(call, wanted, job_id, stamp, kept)
    records.write_submission(submission, file.read_text(), records.surroundings(os.environ, CODE))
    file.unlink()
    return submission


def to_pass_on(call: Call[Any], wanted: Request, stamp: str) -> str:
    """What the job finds in SUBMITTED."""
    record = str(record_of(call, stamp)).removesuffix("-%j")
    return json.dumps({"record": record, "site": wanted.site.plain(), "nodes": wanted.resources.nodes})


def submitted(call: Call[Any], wanted: Request, job_id: str, stamp: str, kept: Mapping[str, Any]) -> Submission:
    """The submission of a command; `kept` are its code's revision, its data's manifest, and who submitted it where."""
    return Submission(
        name=wanted.name,
        command=call.words,
        argv=tuple(sys.orig_argv),
        script="",
        scheduler=wanted.site.scheduler,
        job_id=job_id,
        site=wanted.site.plain(),
        resources=wanted.resources,
        after=(*wanted.after, *wanted.after_end),
        log=str(Path(wanted.log.replace("%j", job_id)).absolute()),
        directory=call.results / SUBMISSIONS / f"{stamp}-{job_id}",
        **kept,
    )


def job_arguments(config: LaunchConfig, call: Call[Any], wanted: Request) -> tuple[str, ...]:
    """The arguments with which the launcher runs inside the job."""
    return (
        *(("--procs-per-node", str(config.procs_per_node)) if config.procs_per_node else ()),
        *(("--after", ",".join(wanted.after)) if wanted.after else ()),
        *("--attempts", str(config.attempts), "--", *call.words),
    )


def launch_in_job(arguments: tuple[str, ...], found: str) -> None:
    """Inside the job, on its first host: runs `python -m hpcgender.launch ARGUMENTS`, and ends with its exit code."""
    os.environ[SUBMITTED] = found
    sys.argv = ["", *arguments]
    try:
        with StopRequests():  # submitit's own handlers would end the job
            runpy.run_module("hpcgender.launch", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
