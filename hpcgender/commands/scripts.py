"""`hpcgender scripts`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command
from shard_tools.base.files import check_directory


@dataclass(frozen=True, kw_only=True)
class ScriptsConfig:
    """Copies the job scripts and the site profiles out of the installed package, to submit and to adapt.

    The scripts use this environment, and run in the directory that holds DIR: data, runs and logs are there. Nothing is
    overwritten.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory for them, such as jobs in your project's directory."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        check_directory(self.out, "DIR")


COMMANDS = (
    Command(
        name="scripts",
        summary="copy the job scripts and site profiles into a directory",
        options=ScriptsConfig,
        work="hpcgender.launch.scripts:copy_scripts",
        launched=False,
    ),
)
