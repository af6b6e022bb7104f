"""Trying a script with the command that would submit it: a wrong request may otherwise wait forever."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jobs.command import SUBMIT_SECONDS, SchedulerError, run
from shard_tools.base.errors import UserError
from shard_tools.base.text import printable

_PHRASES = ("sbatch: error: ", "sbatch: ", "Unable to run job: ", "allocation failure: ", "verification: ")
_AWAY = ("configuration source", "unable to contact", "read qmaster name", "cannot contact", "connection refused")
_EMPTY = ("Exiting.", "no suitable queues")


@dataclass(frozen=True)
class Hint:
    """What names there are where a refusal holds `word`: those that `command` lists, first on each line."""

    word: str
    kind: str
    command: tuple[str, ...]
    listed: Callable[[list[str]], bool] = bool
    """Whether a line, split at blanks, counts."""


def try_script(
    title: str, name: str, script: str, command: Callable[[str], Sequence[str]], hints: Iterable[Hint] = ()
) -> str:
    """What the scheduler called `title` answers to `command(file)` of a job's script, if it could run.

    UserError, with the scheduler's message on one line and with the names that it knows, if it never could.
    """
    try:
        with tempfile.NamedTemporaryFile("w", prefix="hpcgender-", suffix=".sh") as file:
            file.write(script)
            file.flush()
            done = run(*command(file.name), seconds=SUBMIT_SECONDS)
        answer = done.stdout + done.stderr
        known = _known(answer, hints) if done.returncode else ""
    except SchedulerError as error:
        raise UserError(str(error)) from None
    if done.returncode and any(phrase in answer.lower() for phrase in _AWAY):
        last = refusal(answer).rpartition("; ")[2]
        raise UserError(f"{title} does not answer here, log in to a machine of its cluster: {last}")
    if done.returncode:
        raise UserError(f"{title} refuses {name}: {refusal(answer)}" + (f" ({known})" if known else ""))
    return refusal(answer)


def refusal(answer: str) -> str:
    """A scheduler's message of several lines on one line, without its standard phrases."""
    lines = []
    for line in map(str.strip, re.sub(r"\x1b\[[0-9;]*m", "", answer).splitlines()):
        for phrase in _PHRASES:
            line = line.removeprefix(phrase)  # noqa: PLW2901
        if line and line not in _EMPTY:
            lines.append(line)
    return printable("; ".join(dict.fromkeys(lines))) or "no reason given"


def _known(answer: str, hints: Iterable[Hint]) -> str:
    for hint in hints:
        if hint.word in answer.lower():
            done = run(*hint.command)
            rows = [line.split() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
            names = dict.fromkeys(row[0] for row in rows if hint.listed(row))
            return f"{hint.kind} here: {', '.join(names)}" if done.returncode == 0 and names else ""
    return ""
