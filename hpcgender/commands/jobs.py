"""`hpcgender jobs` and the commands below it: their options, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlacesConfig:
    """Where the records of runs are."""

    within: tuple[Path, ...] = (Path("runs"), Path("data"))
    """Directories that hold runs and packed data sets."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig(PlacesConfig):
    """List your runs: state and reason, epoch, accuracy, speed, time left, requeues. Further commands: jobs logs,
    jobs why, jobs cancel and jobs resubmit."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Only these: names of runs, directories, or ids of jobs."""
    all: bool = False
    """All submissions of a run, not only the last one and those that have not ended."""
    active: bool = False
    """Only what waits or runs."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class LogsConfig(PlacesConfig):
    """Print the log of a run."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run, its directory, or the id of a job."""
    follow: Annotated[bool, tyro.conf.arg(aliases=("-f",))] = False
    """Go on printing as the log grows, through requeues, until the run has ended."""
    rank: int = 0
    """Whose log: 0 is the job's own."""
    lines: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 0
    """Begin with the last LINES lines. 0: with the first."""

    def __post_init__(self) -> None:
        for name in ("rank", "lines"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name)}: it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class WhyConfig(PlacesConfig):
    """Say why a run waits, or why it failed."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run, its directory, or the id of a job."""


@dataclass(frozen=True, kw_only=True)
class CancelConfig(PlacesConfig):
    """Cancel runs: they end and are not requeued; their results and checkpoints stay."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Names of runs, their directories, or ids of jobs."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("give the runs to cancel, as in hpcgender jobs cancel se_resnet152")


@dataclass(frozen=True, kw_only=True)
class ResubmitConfig(PlacesConfig):
    """Submit a run again: the same command with the same resources. A training goes on where it stopped."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run, its directory, or the id of a job."""
    after: str = ""
    """Ids of jobs, with commas, that must succeed before."""
    dry_run: bool = False
    """Print the job's script, and do nothing else."""


COMMANDS = (
    Command(
        name="jobs",
        summary="list your runs: state, epoch, accuracy, speed",
        options=JobsConfig,
        work="hpcgender.status.table:list_jobs",
        launched=False,
    ),
    Command(
        name="jobs logs",
        summary="print or follow the log of a run",
        options=LogsConfig,
        work="hpcgender.status.logs:show_logs",
        launched=False,
    ),
    Command(
        name="jobs why",
        summary="explain why a run waits or failed",
        options=WhyConfig,
        work="hpcgender.status.why:why",
        launched=False,
    ),
    Command(
        name="jobs cancel",
        summary="cancel runs",
        options=CancelConfig,
        work="hpcgender.status.cancel:cancel",
        launched=False,
    ),
    Command(
        name="jobs resubmit",
        summary="submit a run again",
        options=ResubmitConfig,
        work="hpcgender.status.resubmit:resubmit",
        launched=False,
    ),
)
