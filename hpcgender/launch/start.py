"""Where a launch begins: outside a job it submits the command, in a job or without a scheduler it runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.agents import Layout, make_layout
from hpcgender.launch.attempt import run
from hpcgender.launch.record import Submitted, begun_with, find_record, note_refusal, read_passed_on
from hpcgender.launch.submit import submit_all
from hpcgender.log_lines import LAUNCH
from jobs import machine
from jobs.scheduler import Allocation
from jobs.schedulers import find_allocation, named
from jobs.site import Site
from jobs.sites import find_site, read_site, stored_site
from shard_tools.base.commands import Call, Command, find_call
from shard_tools.base.errors import StorageError, UserError, unknown
from shard_tools.base.text import plural


def launch(config: LaunchConfig, site: Site | None = None) -> int:
    """Runs or submits the command, and returns the exit code. Raises UserError for what can be checked beforehand.

    `site` is one whose settings are not read again.
    """
    submitted = Submitted(site=site) if site else read_passed_on()
    granted = find_allocation(os.environ, whose_job(config, submitted))
    try:
        plan = prepare(config, submitted, granted)
    except (UserError, StorageError) as error:
        note(error, config, submitted, granted)
        raise
    if not plan.layouts:
        return submit_all(config, plan.calls, plan.site)
    if config.dry_run:
        print("\n".join(map(preview, plan.layouts)))
        return 0
    in_job = granted.scheduler.has_queue
    for option in unused(config, in_job, plan.layouts[0].allocation.hosts[0].cpus):
        print(f"{LAUNCH}{option}", file=sys.stderr)
    for number, call in enumerate(plan.calls):
        if code := run(config, call, plan.site, granted, submitted, name="" if number else config.job_name):
            return code
    return 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to run, and where."""

    calls: list[Call[Any]]
    site: Site
    layouts: list[Layout]
    """Of the calls; none if they are to be submitted."""


def prepare(config: LaunchConfig, submitted: Submitted, granted: Allocation) -> Plan:
    """Chooses what runs, and where. Raises UserError for what can be known of that beforehand."""
    in_job = granted.scheduler.has_queue
    call, site = find_call(PROGRAMS, config.command), submitted.site
    if not site and (begun := begun_with(call, granted)):
        call, site = find_call(PROGRAMS, begun.command), stored_site(begun.site, begun.directory)
    site = site or find_site(config.site, granted.scheduler.name if in_job else config.scheduler, os.environ)
    call = call.settled()
    if not in_job and config.after:
        call.command.check_results(call.options)
    elif not in_job:
        call.check()
    calls = [call, *chained(call, config.following)]
    if not in_job and named(site.scheduler).has_queue:
        return Plan(calls=calls, site=site, layouts=[])
    if config.after and not in_job:
        raise UserError("--after needs a scheduler: run the commands one after the other with --chain")
    layouts = [make_layout(config, each, site, granted, os.environ) for each in calls]
    here = layouts[0].allocation.hosts[0].name
    if config.gpus_per_node and not machine.has_gpus():
        raise UserError(
            f"--gpus-per-node {config.gpus_per_node}: {here} has no GPU that may be used: there is no /dev/nvidia "
            "device to open, and nvidia-smi lists none"
        )
    if site.container and not config.dry_run and not shutil.which(site.agent_python[0]):
        raise UserError(
            f"site {site.name}, container: there is no {site.agent_python[0]} on {here}: give its path, or load it "
            "with modules"
        )
    return Plan(calls=calls, site=site, layouts=layouts)


def whose_job(config: LaunchConfig, submitted: Submitted) -> str:
    """The scheduler whose job around this process counts; auto: any. UserError for a site that cannot be read."""
    if submitted.site:
        return submitted.site.scheduler
    return read_site(config.site).scheduler if config.site and config.scheduler == "auto" else config.scheduler


def note(error: UserError | StorageError, config: LaunchConfig, submitted: Submitted, granted: Allocation) -> None:
    """Records that the job around this process is refused, if its command can be read."""
    call: Call[Any] | None
    try:
        call = find_call(PROGRAMS, config.command)
    except UserError:
        call = None
    record = find_record(submitted, call, granted) if call else None
    note_refusal(error, config, granted, record, call, submitted.site)


def unused(config: LaunchConfig, in_job: bool, cpus: int) -> Iterator[str]:
    """The options that request what cannot be requested any more, or here, a line each; `cpus` are a node's."""
    if config.cpus and config.cpus > cpus:
        yield f"--cpus {config.cpus}: there are {cpus} for each node, which are used"
    if config.mem:
        how = "the job has what it was granted" if in_job else "without a scheduler nothing limits memory"
        yield f"--mem {config.mem:g} has no effect: {how}"
    if config.attempts != LaunchConfig.attempts and not in_job:
        yield f"--attempts {config.attempts} has no effect: without a scheduler nothing is requeued"


def chained(call: Call[Any], names: Sequence[str]) -> list[Call[Any]]:
    """The commands of a chain after `call`, each with what the one before makes; UserError for one that cannot follow.

    Which can follow what, and with which options, is theirs: `Command.made`, `Command.following`.
    """
    calls, made = [call], call.made
    for name in names:
        before = calls[-1]
        try:
            words = _follower(name).following(made)
        except UserError as error:
            raise UserError(f"--chain {name} cannot work: {error}") from None
        if words is None:
            raise UserError(
                f"--chain: {name} cannot follow {before.command.name}: train follows pack, eval and cam follow train"
            )
        calls.append(find_call(PROGRAMS, words))
        made = replace(
            calls[-1].made, tasks=calls[-1].made.tasks or made.tasks, final=calls[-1].made.final and made.final
        )
    return calls[1:]


def _follower(name: str) -> Command[Any]:
    commands = [command for program in PROGRAMS for command in program.commands()]
    able = [command for command in commands if type(command).following is not Command.following]
    for command in able:
        if name in (command.name, command.alias):
            return command
    raise unknown("command in --chain", name, [command.alias or command.name for command in able])


def preview(layout: Layout) -> str:
    """What would run here, for a person."""
    hosts = layout.allocation.hosts
    names = ", ".join(dict.fromkeys(host.name for host in hosts))
    command = shlex.join((*layout.python, *layout.ranks))
    each = plural(layout.procs_per_node, "process", "processes")
    return f"{plural(len(hosts), 'node')} ({names}) with {each} each: {command}"
