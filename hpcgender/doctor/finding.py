"""What a check has found: green, yellow or red, in words, with what to do and with the numbers it has measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar

from shard_tools.base.errors import StorageError, UserError, one_line

State = Literal["green", "yellow", "red"]
STATES: tuple[State, ...] = ("green", "yellow", "red")
"""From good to bad: fine; works, with a disadvantage; will fail."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check on one host, or of the ranks together."""

    check: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty if nothing is."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What was measured, for programs."""
    host: str = ""
    """Where; empty for all ranks together."""


def green(check: str, found: str, **numbers: float) -> Finding:
    """Fine."""
    return Finding(check=check, state="green", found=found, numbers=numbers)


def yellow(check: str, found: str, advice: str, **numbers: float) -> Finding:
    """Works, with a disadvantage."""
    return Finding(check=check, state="yellow", found=found, advice=advice, numbers=numbers)


def red(check: str, found: str, advice: str, **numbers: float) -> Finding:
    """Will fail."""
    return Finding(check=check, state="red", found=found, advice=advice, numbers=numbers)


def examined(
    name: str, check: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result | Finding:
    """What a check finds or measures; an error in it is a red finding of that name: what it tried will fail later."""
    try:
        return check(*arguments, **named)
    except (UserError, StorageError) as error:  # which say what to do
        return red(name, str(error), "correct that, and examine again")
    except Exception as error:
        return red(name, f"{type(error).__name__}: {one_line(error)}"[:500], "correct that, and examine again")
