"""A command that is to be launched: what runs, where its results go, and how far it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgender.commands import PROGRAMS
from shard_tools.base.commands import RUNS, Call, Command, find_call
from shard_tools.base.errors import UserError, unknown
from shard_tools.manifest import MANIFEST

__all__ = ["RUNS", "Work", "chained", "find_work", "plain_name"]


@dataclass(frozen=True)
class Work:
    """One command with its options, as every rank runs it: `python -m <module> <command>`."""

    call: Call[Any]

    @property
    def module(self) -> str:
        return self.call.module

    @property
    def title(self) -> str:
        """The command's own words: `train`, `pack ms1mv2`."""
        return self.call.command.name

    @property
    def command(self) -> tuple[str, ...]:
        return self.call.words

    @property
    def options(self) -> Any:
        """The instance of its options."""
        return self.call.options

    @property
    def distributed(self) -> bool:
        return self.call.command.distributed

    @property
    def results(self) -> Path:
        """The directory of its results: the record of its submission is kept there."""
        return self.call.results

    @property
    def rank_log(self) -> str:
        """Where ranks above 0 log to, with {rank} in it; empty if there are none."""
        return str(self.results / "logs" / "rank-{rank}.log") if self.distributed else ""

    @property
    def job_name(self) -> str:
        """A name for its job, of letters that every scheduler takes."""
        return plain_name(self.call.command.job_name(self.options))

    @property
    def data(self) -> Path | None:
        """The data set that it reads, if it reads one."""
        return self.call.data

    @property
    def manifest_sha256(self) -> str:
        """The SHA-256 of its data set's manifest; empty if there is none yet."""
        try:
            return hashlib.sha256((self.data / MANIFEST).read_bytes()).hexdigest() if self.data else ""
        except OSError:
            return ""

    def progress(self) -> int | None:
        """How far the work is, as a number that only grows; None if that is not known."""
        return self.call.progress()


def find_work(command: Sequence[str], check: bool = True) -> Work:
    """The work that a command line asks for; with `check`, its options are checked as far as that goes without torch.

    Raises UserError, or exits as the command itself would on a wrong option.
    """
    call = find_call(PROGRAMS, command)
    if check:
        call.check()
    return Work(call)


def plain_name(text: str) -> str:
    """A job's name of letters, digits and . _ - that begins with a letter, as Grid Engine and file names need it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")[:100]
    return name if name[:1].isalpha() else f"job_{name}"


def chained(work: Work, names: Sequence[str]) -> list[Work]:
    """The commands of a chain after `work`, each with what the one before makes; UserError for one that cannot follow.

    Which can follow what, and with which options, the commands say (`Command.made`, `Command.following`).
    """
    found: list[Work] = []
    for name in names:
        before = ([work, *found])[-1].call
        command = _follower(name)
        words = command.following(before.made)
        if words is None:
            raise UserError(
                f"--chain: {name} cannot follow {before.command.name}: train follows pack, eval and cam follow train"
            )
        found.append(find_work(words, check=False))
    return found


def _follower(name: str) -> Command[Any]:
    commands = [command for program in PROGRAMS for command in program.commands()]
    able = {word: command for command in commands if _may_follow(command) for word in (command.alias, command.name)}
    if name not in able or not name:
        raise unknown("command in --chain", name, [word for word in able if word])
    return able[name]


def _may_follow(command: Command[Any]) -> bool:
    return type(command).following is not Command.following
