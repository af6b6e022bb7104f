"""`shard-tools finalize`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command, Made


@dataclass(frozen=True, kw_only=True)
class FinalizeConfig:
    """Joins the parts that the tasks of `shard-tools pack SOURCE --task K/N` made into one data set."""

    out: Annotated[Path, tyro.conf.Positional]
    """Directory that the parts were packed into."""
    workers: int = 2
    """Processes that read and write."""


class Finalize(Command[FinalizeConfig]):
    """Joining the parts of a pack."""

    def results(self, options: FinalizeConfig) -> Path:
        return options.out

    def made(self, options: FinalizeConfig) -> Made:
        return Made(data=options.out)


COMMANDS = (
    Finalize(
        name="finalize",
        summary="join what the tasks of pack --task made",
        options=FinalizeConfig,
        work="shard_tools.pack:finalize",
    ),
)
