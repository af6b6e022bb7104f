"""Requests to stop that reach a launcher: signals, and the job's time limit coming near."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

TIME_LIMIT = "time limit"
"""The reason of a stop that the launcher asked for itself, or that Slurm asked the ranks for before the limit."""

EARLY_SECONDS = 60.0
"""How much earlier than asked for Slurm may send the signal of `sbatch --signal`, by its own manual."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Limit:
    """When the scheduler will end the job, and the seconds before that which its ranks need to save their work."""

    ask: Callable[[], float | None]
    """The end in Unix time, as the scheduler knows it now: it may be put off. None if there is none, or no answer."""
    margin: float


def margin(seconds: float) -> float:
    """How long before the end of a job of so many seconds to ask its ranks to stop: a tenth, from 20 s to 3 minutes."""
    return min(180.0, max(20.0, seconds / 10))


class StopRequests:
    """While it is entered, TERM, INT, HUP, USR1 and USR2 are noted, and the time is watched. For the main thread."""

    def __init__(self) -> None:
        self._signals: list[signal.Signals] = []
        self._limit: Limit | None = None
        self._end: float | None = None
        self._late = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequests:
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def ignore(self) -> None:
        """From now on, and afterwards: this process has decided how it ends, and does so soon."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
            self._handlers[number] = signal.SIG_IGN

    def watch(self, limit: Limit) -> None:
        """Asks to stop when the limit is near."""
        self._limit, self._end = limit, limit.ask()

    @property
    def reason(self) -> str | None:
        """Why to stop, by the first that asked: a signal's name or TIME_LIMIT."""
        if self._signals:
            return self._signals[0].name
        if not self._late and self._is_late():
            self._late = True
        return TIME_LIMIT if self._late else None

    @property
    def reason_of_ranks(self) -> str | None:
        """Why ranks may have stopped that this process has not asked: TIME_LIMIT if Slurm may have warned of it."""
        if self._limit and self._end and time.time() >= self._end - self._limit.margin - EARLY_SECONDS:
            return TIME_LIMIT
        return None

    @property
    def impatient(self) -> bool:
        """Whether a person has pressed Ctrl-C twice."""
        return self._signals.count(signal.SIGINT) > 1

    def _is_late(self) -> bool:
        if not self._limit or not self._end or time.time() < self._end - self._limit.margin:
            return False
        end = self._limit.ask()  # an administrator may have put it off
        self._end = end or self._end
        return time.time() >= self._end - self._limit.margin

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))
