"""Submits commands as jobs, each after the one before, and writes their records."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from hpcgender.commands.launch import JobConfig, LaunchConfig, minutes
from hpcgender.launch.attempt import CODE
from hpcgender.launch.job import launch_in_job
from hpcgender.launch.work import Work, plain_name
from jobs import records
from jobs.records import Resources, Submission
from jobs.scheduler import Request
from jobs.schedulers import named
from jobs.site import Site
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError

_PLACEHOLDER = re.compile("%[jtAa]")


def submit_all(config: LaunchConfig, works: list[Work], site: Site) -> int:
    """Submits the works in a chain, or with --dry-run prints their scripts.

    All are checked before any is submitted. Raises UserError, with the scheduler's own words, if one could never run.
    """
    stamp = records.stamp()
    requests = [request(config, work, site, first=work is works[0]) for work in works]
    folders = [folder(work, stamp) for work in works]
    scheduler = named(site.scheduler)
    if config.dry_run:
        print("\n".join(scheduler.preview(*pair) for pair in zip(requests, folders, strict=True)), end="")
        return 0
    for pair in zip(requests, folders, strict=True):
        scheduler.check(*pair)
    before = config.ancestors
    submitted: list[str] = []
    for work, wanted in zip(works, requests, strict=True):
        try:
            submission = submit(config, work, wanted, before, stamp)
        except (UserError, OSError) as error:
            so_far = f"; submitted before it: {', '.join(submitted)}" if submitted else ""
            raise UserError(f"{wanted.name}: {error}{so_far}") from None
        submitted.append(submission.job_id)
        before = (submission.job_id,)
        after = f" after {', '.join(submission.after)}" if submission.after else ""
        tail = f"tail -F {shlex.quote(os.path.relpath(submission.log))}"
        print(f"job {submission.job_id} {submission.name}{after}: {tail}")
    return 0


def request(config: LaunchConfig, work: Work, site: Site, first: bool = True) -> Request:
    """What to ask the scheduler for; the jobs of a chain after the first ask for as much as they can use of it."""
    if first and not work.distributed and (config.nodes or 1) > 1:
        raise UserError(f"--nodes {config.nodes}: {work.title} runs on one node")
    gpus = config.gpus_per_node if config.gpus_per_node is not None and (work.distributed or first) else None
    wanted = resources(config, site, gpus=int(work.distributed) if gpus is None else gpus)
    return Request(
        name=plain_name(config.job_name) if config.job_name and first else work.job_name,
        site=site,
        resources=wanted if work.distributed else replace(wanted, nodes=1, procs_per_node=1),
        after=config.ancestors if first else (),
    )


def resources(config: JobConfig, site: Site, gpus: int) -> Resources:
    """What the options say, and the site's settings where they do not."""
    return Resources(
        nodes=config.nodes or 1,
        procs_per_node=config.procs_per_node or max(1, gpus),
        gpus_per_node=gpus,
        cpus=config.cpus or site.cpus_per_node,
        mem=config.mem or site.memory_gb,
        time_min=minutes(config.time, "--time") or minutes(site.time, f"site {site.name}: time"),
    )


def folder(work: Work, stamp: str) -> Path:
    """The record of a job whose id is not known yet, as submitit takes it; UserError if it cannot."""
    results = work.results.absolute()
    if _PLACEHOLDER.search(str(results)):
        raise UserError(f"{results}: %j, %t, %A and %a have a meaning in the paths of jobs: give another name")
    return results / SUBMISSIONS / f"{stamp}-%j"


def submit(config: LaunchConfig, work: Work, wanted: Request, after: tuple[str, ...], stamp: str) -> Submission:
    """Submits one job and writes its record."""
    wanted = replace(wanted, after=after)
    kept = {"revision": records.revision(CODE), "manifest": work.manifest_sha256, **records.who_and_where()}
    task = (job_arguments(config, work, wanted), str(work.results.absolute()), stamp)
    job_id, file = named(wanted.site.scheduler).submit(wanted, folder(work, stamp), launch_in_job, task)
    directory = work.results / SUBMISSIONS / f"{stamp}-{job_id}"
    submission = Submission(
        name=wanted.name,
        command=work.command,
        argv=tuple(sys.orig_argv),
        script="",
        scheduler=wanted.site.scheduler,
        job_id=job_id,
        site=wanted.site.plain(),
        resources=wanted.resources,
        after=after,
        log=str(Path(wanted.log.replace("%j", job_id)).absolute()),
        directory=directory,
        **kept,
    )
    records.write_submission(submission, file.read_text(), os.environ, CODE)
    file.unlink()
    return submission


def job_arguments(config: LaunchConfig, work: Work, wanted: Request) -> tuple[str, ...]:
    """The options with which the launcher runs inside the job."""
    said = [
        *(("--procs-per-node", str(config.procs_per_node)) if config.procs_per_node else ()),
        *(("--after", ",".join(wanted.after)) if wanted.after else ()),
        *("--attempts", str(config.attempts), "--site", wanted.site.file or wanted.site.name),
    ]
    return (*said, "--", *work.command)
