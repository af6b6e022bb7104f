"""Submitting a run again from its record: the same command with the same resources."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hpcgender.commands import PROGRAMS
from hpcgender.commands.jobs import ResubmitConfig
from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.start import launch
from hpcgender.status.runs import choose, read_records, study_meant, unheard
from hpcgender.study.command import study
from hpcgender.study.options import kept_options
from jobs.records import Submission
from jobs.schedulers import named
from jobs.sites import stored_site
from shard_tools.base.commands import find_command, plain_name
from shard_tools.base.errors import UserError


def resubmit(config: ResubmitConfig) -> int:
    """Submits the run again, or runs it here if it was a local one; returns the exit code. UserError if it is alive."""
    records = read_records(config.within)
    if name := study_meant(records, config.run):
        return resubmit_study(name, config)
    run, queues = choose(records, config.run, config.within)
    submission = run.record.submission
    if run.status.alive:
        first = f"cancel it first, with hpcgender jobs cancel {run.record.run}"
        if run.status.state == "stopping":
            first = f"wait until it has ended, which hpcgender jobs logs {run.record.run} --follow does"
        raise UserError(f"run {run.record.run} is {run.status.state} as job {submission.job_id}: {first}")
    if error := unheard(run, queues):
        raise UserError(f"whether run {run.record.run} still waits or works is unknown, try again: {error}")
    if not Path(submission.cwd).is_dir():
        raise UserError(f"run {run.record.run} was submitted in {submission.cwd}, which is not there any more")
    again = launch_config(submission, config.after, config.dry_run)
    os.chdir(submission.cwd)
    # A script has its partition and more in its own lines, which the record's site has, and no file of settings.
    return launch(again, stored_site(submission.site, submission.directory) if submission.script else None)


def resubmit_study(name: str, config: ResubmitConfig) -> int:
    """Gives the command of a study again, where it was given."""
    if config.after:
        raise UserError(f"--after {config.after}: the jobs of a study wait for each other alone")
    options, directory = kept_options(config.within[0] / name)
    if not directory.is_dir():
        raise UserError(f"study {name} was submitted in {directory}, which is not there any more")
    os.chdir(directory)
    return study(replace(options, dry_run=config.dry_run))


def launch_config(submission: Submission, after: str = "", dry_run: bool = False) -> LaunchConfig:
    """The options of a launch with the resources of a submission, of the command that resumes what it began."""
    wanted = submission.resources
    command = find_command(PROGRAMS, submission.command)
    return LaunchConfig(
        command=command.resumed(submission.command) if command else submission.command,
        nodes=wanted.nodes or None,
        gpus_per_node=wanted.gpus_per_node or (0 if named(submission.scheduler).has_queue else None),
        procs_per_node=wanted.procs_per_node or None,
        cpus=wanted.cpus or None,
        mem=wanted.mem or None,
        time=f"{wanted.time_min:g}m" if wanted.time_min else "",
        scheduler=submission.scheduler,  # type: ignore[arg-type]
        site=str(submission.site.get("file") or submission.site["name"]),
        after=after,
        job_name=plain_name(submission.name),
        dry_run=dry_run,
    )
