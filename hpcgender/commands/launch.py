"""`hpcgender launch`: its options, and what is true of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from shard_tools.base.commands import Command, default_is
from shard_tools.base.errors import UserError
from shard_tools.base.names import check_name
from shard_tools.base.options import parse

_MINUTES = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a job requests, and of which scheduler."""

    nodes: Annotated[int | None, default_is("1, inside a job all that were granted")] = None
    """Number of nodes."""
    gpus_per_node: Annotated[
        int | None,
        default_is("1 for train, evaluate and cam, otherwise 0; without a scheduler all"),
    ] = None
    """GPUs per node."""
    procs_per_node: Annotated[int | None, default_is("one per GPU, or 1 without GPUs")] = None
    """Processes per node."""
    cpus: Annotated[int | None, default_is("the site's")] = None
    """CPU cores per node."""
    mem: Annotated[float | None, default_is("the site's", "GB")] = None
    """Memory per node, GB."""
    time: Annotated[str, default_is("the site's", "TIME")] = ""
    """Time limit of the job, e.g. 24h, 1d12h, 90m or 1:30:00."""
    scheduler: Literal["auto", "slurm", "sge", "local"] = "auto"
    """Scheduler to submit to; auto: the one of this machine; local: run on this machine, also within a job."""
    site: Annotated[str, default_is("HPCGENDER_SITE, or ./site.toml, or a generic one", "FILE|NAME")] = ""
    """Site profile: a TOML file, or one of abci, local, notre-dame-crc, sge and slurm."""

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("procs_per_node", 1), ("cpus", 1), ("gpus_per_node", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} {value}: at least {least} is needed")
        if self.mem is not None and self.mem <= 0:
            raise UserError(f"--mem {self.mem:g}: give GB, as in --mem 32")
        minutes(self.time, "--time")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig(JobConfig):
    """Runs a command on several nodes.

    Inside a Slurm or Grid Engine job it runs on the hosts that were granted; on a login node it submits such a job; on
    a machine without a scheduler it runs right there.
    """

    command: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="COMMAND ...")] = ("train",)
    """The command of hpcgender or shard-tools to run, with its options, after --."""
    chain: Annotated[str, default_is("none", "COMMANDS")] = ""
    """Comma-separated commands to run afterwards, each if the one before succeeds: train, eval, cam."""
    after: Annotated[str, default_is("none", "JOB_IDS")] = ""
    """Comma-separated ids of jobs that must succeed first."""
    attempts: int = 3
    """Consecutive attempts without progress, e.g. a newer checkpoint, after which the job is no longer requeued."""
    job_name: Annotated[str, default_is("names of the command and its results", "NAME")] = ""
    """Name of the job."""
    dry_run: bool = False
    """Print the job script without submitting it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.job_name:
            check_name("--job-name", self.job_name)
        if self.attempts < 1:
            raise UserError(f"--attempts {self.attempts}: at least 1 is needed")
        for job_id in self.ancestors:
            if not re.fullmatch(r"\d+([._]\d+)?", job_id):
                raise UserError(f"--after {self.after}: {job_id!r} is no job's id: give numbers, as in --after 12,13")

    @classmethod
    def from_arguments(cls, program: str, arguments: Sequence[str]) -> LaunchConfig:
        """The options that `arguments` give; UserError for a wrong one, with advice for one of the launched command."""
        settings = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
        try:
            found: LaunchConfig = parse(cls, program, arguments, config=settings)
        except UserError as error:
            if "--" in arguments or not str(error).startswith("unknown option"):
                raise
            raise UserError(f"{error}; options of the command stand after --: {program} --nodes 2 -- train") from None
        return found

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The ids of --after."""
        return words(self.after)

    @property
    def following(self) -> tuple[str, ...]:
        """The commands of --chain."""
        return words(self.chain)


def words(text: str) -> tuple[str, ...]:
    """The words between the commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def minutes(text: str, where: str) -> float:
    """The minutes of a duration: 24h, 1d12h30m, 1:30:00, 2-00:00:00 (days), or a number of minutes. 0 if empty.

    Raises UserError, which begins with `where`, if it is no duration.
    """
    text = text.strip()
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        days, hours, mins, seconds = (int(part or 0) for part in clock.groups())
        return 1440.0 * days + 60 * hours + mins + seconds / 60
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if "".join(map("".join, parts)) != text:
        raise UserError(f"{where} {text}: give a time such as 24h, 1d12h, 90m or 1:30:00")
    return sum(float(number) * _MINUTES[unit] for number, unit in parts)


COMMANDS = (
    Command(
        name="launch",
        summary="run a command on several nodes, here or as a job",
        options=LaunchConfig,
        work="hpcgender.launch.start:launch",
        launched=False,
    ),
)
