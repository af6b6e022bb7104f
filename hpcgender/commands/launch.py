"""`hpcgender launch`: its options, and what is true of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError

_MINUTES = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a job asks for, and where."""

    nodes: int | None = None
    """On how many nodes. Default: 1; inside a job, all that it was granted."""
    gpus_per_node: int | None = None
    """GPUs on each node. Default: 1 for train, evaluate and cam, 0 for others; on this machine those it has."""
    procs_per_node: int | None = None
    """Processes on each node. Default: one for each GPU, or 1."""
    cpus: int | None = None
    """Cores on each node. Default: the site's."""
    mem: float | None = None
    """GB of memory on each node. Default: the site's."""
    time: str = ""
    """Time limit of the job, such as 24h, 1d12h, 90m or 1:30:00. Default: the site's."""
    scheduler: Literal["auto", "slurm", "sge", "local"] = "auto"
    """Where to submit; auto: to the one that this machine has; local: run here."""
    site: str = ""
    """Site profile: a TOML file, or one of abci, local, notre-dame-crc, sge and slurm. Default: HPCGENDER_SITE, or
    site.toml here, or a generic one."""

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
    """Run a command on several nodes: inside a Slurm or Grid Engine job on its hosts, elsewhere as such a job, or, if
    there is no scheduler, on this machine."""

    command: Annotated[tuple[str, ...], tyro.conf.Positional] = ("train",)
    """A command of hpcgender or shard-tools and its options, after `--`."""
    chain: str = ""
    """Commands to run afterwards, each if the one before succeeded: train, eval, cam, with commas."""
    after: str = ""
    """Ids of jobs, with commas, that must succeed before this one starts."""
    attempts: int = 3
    """Attempts in a row without a newer checkpoint after which the job is not requeued any more."""
    job_name: str = ""
    """Name of the job. Default: the command's and its results'."""
    dry_run: bool = False
    """Print the job's script, and do nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attempts < 1:
            raise UserError(f"--attempts {self.attempts}: at least 1 is needed")
        for job_id in self.ancestors:
            if not re.fullmatch(r"\d+([._]\d+)?", job_id):
                raise UserError(f"--after {self.after}: {job_id!r} is no job's id: give numbers, as in --after 12,13")

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The ids of --after."""
        return words(self.after)

    @property
    def following(self) -> tuple[str, ...]:
        """The commands of --chain."""
        return words(self.chain)


def words(text: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def minutes(text: str, where: str) -> float:
    """A duration in minutes: 24h, 1d12h30m, 1:30:00, 2-00:00:00 (days), or a number of minutes. 0 if empty.

    UserError, which begins with `where`, if it is none.
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
