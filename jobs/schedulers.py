"""The schedulers that there are, and which of them is around this process or on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.local import Local
from jobs.scheduler import Allocation, Scheduler
from jobs.sge.scheduler import GridEngine
from jobs.slurm.scheduler import Slurm
from shard_tools.base.errors import UserError, unknown

LOCAL = Local()

SCHEDULERS: dict[str, Scheduler] = {scheduler.name: scheduler for scheduler in (Slurm(), GridEngine(), LOCAL)}
"""All schedulers by name; the first of which a job has the environment is its own."""


def named(name: str) -> Scheduler:
    """The scheduler of that name; UserError if there is none."""
    if name not in SCHEDULERS:
        raise unknown("scheduler", name, list(SCHEDULERS))
    return SCHEDULERS[name]


def find_allocation(environ: Mapping[str, str], wanted: str = "auto") -> Allocation:
    """What the job around this process was granted, or this machine outside a job. UserError if it cannot be read.

    `wanted` is the only scheduler whose job counts, or auto for any: a terminal within a job may be used for others.
    """
    for scheduler in SCHEDULERS.values():
        asked = scheduler.has_queue and wanted in ("auto", scheduler.name)
        if asked and (found := scheduler.allocation(environ)):
            return found
    return LOCAL.allocation(environ)


def schedulers_here(environ: Mapping[str, str]) -> list[Scheduler]:
    """The schedulers that this machine can submit to."""
    return [scheduler for scheduler in SCHEDULERS.values() if scheduler.has_queue and scheduler.is_here(environ)]


def find_scheduler(environ: Mapping[str, str]) -> Scheduler:
    """The scheduler that this machine can submit to, or none, which is this machine; UserError if there are several."""
    found = schedulers_here(environ)
    if len(found) > 1:
        titles = " and ".join(scheduler.title for scheduler in found)
        options = " or ".join(f"--scheduler {scheduler.name}" for scheduler in found)
        raise UserError(f"this machine has {titles}: give {options}")
    return found[0] if found else LOCAL
