"""`hpcgender jobs` and the commands below it: their options, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command, default_is
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlacesConfig:
    """Where the records of submissions are."""

    within: tuple[Path, ...] = (Path("runs"), Path("data"))
    """Directories that hold runs and packed data sets."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig(PlacesConfig):
    """Lists your runs: state, epoch, validation or test accuracy, images/s, time left, requeues, reason.

    A table on a terminal, tab-separated lines elsewhere. A study is one line unless it is named. See also: hpcgender
    jobs logs, why, cancel and resubmit.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, default_is("all", "[RUN ...]")] = ()
    """List these runs only: names of runs or studies, directories, or job ids."""
    all: bool = False
    """List all submissions of each run and each study, not only the last one and those that have not ended."""
    active: bool = False
    """List only runs that are pending or running."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class LogsConfig(PlacesConfig):
    """Prints the log of a run."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run, its directory, or a job id."""
    follow: Annotated[bool, tyro.conf.arg(aliases=("-f",))] = False
    """Keep printing as the log grows, across requeues, until the run has ended."""
    rank: int = 0
    """Rank whose log to print; 0: the job's log."""
    lines: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 0
    """Print the last LINES lines only; 0: all."""

    def __post_init__(self) -> None:
        for name in ("rank", "lines"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name)}: it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class WhyConfig(PlacesConfig):
    """Explains why a run is pending or failed: reason, exit code, signal, last traceback of its log."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run or study, its directory, or a job id."""


@dataclass(frozen=True, kw_only=True)
class CancelConfig(PlacesConfig):
    """Cancels runs: they end and are not requeued. Their results and checkpoints are kept."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Names of runs or studies, their directories, or job ids."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("give the runs to cancel, as in hpcgender jobs cancel se_resnet152")


@dataclass(frozen=True, kw_only=True)
class ResubmitConfig(PlacesConfig):
    """Submits a run again with the same command and resources. A training resumes from its newest checkpoint; of a
    study all starts that is missing or has failed."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Name of the run or study, its directory, or a job id."""
    after: Annotated[str, default_is("none", "JOB_IDS")] = ""
    """Comma-separated ids of jobs that must succeed first."""
    dry_run: bool = False
    """Print the job script without submitting it."""


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
