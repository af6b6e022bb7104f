"""`hpcgender sites`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass

from hpcgender.commands.launch import JobConfig
from shard_tools.base.commands import Command


@dataclass(frozen=True, kw_only=True)
class CheckConfig(JobConfig):
    """Asks the scheduler whether the queue, parallel environment and resources of a site exist, and whether a job of
    this size could ever run. Submits nothing."""


COMMANDS = (
    Command(
        name="sites check",
        summary="check a site profile with its scheduler",
        options=CheckConfig,
        work="hpcgender.launch.check:check",
        launched=False,
    ),
)
