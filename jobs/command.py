"""Runs a scheduler's command: one time limit, one line about what went wrong. Standard library only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

from .hosts.processes import exit_words

Result = TypeVar("Result")

LIMIT_SECONDS = 60.0
"""How long a command may take before it is given up: qacct reads a whole file, and a busy controller is slow."""

SUBMIT_SECONDS = 2 * LIMIT_SECONDS
"""The limit for submissions and their checks, as a site's own checks run meanwhile."""


class SchedulerError(RuntimeError):
    """A scheduler's command is missing, failed, or gave no answer in time; one line for a person."""


def run(*command: str, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, whatever its exit code; `seconds` instead of LIMIT_SECONDS are its limit.

    Raises SchedulerError if it is missing or takes longer. Its times are in ISO 8601 (Slurm) or English (Grid Engine).
    """
    name = Path(command[0]).name
    limit = LIMIT_SECONDS if seconds is None else seconds
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SLURM_TIME_FORMAT": "standard", "LC_TIME": "C"},
        )
    except FileNotFoundError:
        raise SchedulerError(f"there is no {name} here: log in to a machine of the cluster") from None
    except OSError as error:
        raise SchedulerError(f"cannot run {name}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{name} gave no answer in {limit:g} s: the scheduler seems to be down") from None


def call(*command: str, seconds: float | None = None) -> str:
    """The standard output of a command. Raises SchedulerError also if it fails, with its words on one line."""
    done = run(*command, seconds=seconds)
    if done.returncode:
        name = Path(command[0]).name
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split()).removeprefix(f"{name}: ")
        raise SchedulerError(f"{name}: {words or exit_words(done.returncode)}")
    return done.stdout


def reads(program: str) -> Callable[[Callable[[str], Result]], Callable[[str], Result]]:
    """Has a function of a program's answer raise SchedulerError, in one line, where that is nonsense."""

    def decorate(parse: Callable[[str], Result]) -> Callable[[str], Result]:
        @wraps(parse)
        def read(text: str) -> Result:
            try:
                return parse(text)
            except (ValueError, LookupError, ArithmeticError):
                raise SchedulerError(f"{program}'s answer cannot be read: {text.strip()[:80]!a}") from None

        return read

    return decorate


def answer(call: Callable[..., str], *command: str) -> str:
    """What `call` returns for a command; empty if it fails or does not answer, where its caller can do without it."""
    try:
        return call(*command)
    except SchedulerError:
        return ""
