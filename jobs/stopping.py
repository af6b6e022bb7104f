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
"""How much too early Slurm may send the signal of `sbatch --signal`, by its manual."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Limit:
    """When the scheduler will end the job, and how many seconds before that its ranks are asked to stop."""

    ask: Callable[[], float | None]
    """Returns the end in Unix time as the scheduler knows it now, as it can change; None if unlimited or no answer."""
    margin: float


def margin(seconds: float) -> float:
    """Seconds before its end at which a job of `seconds` is asked to stop: a tenth of them, from 20 to 180."""
    return min(180.0, max(20.0, seconds / 10))


class StopRequests:
    """Within its `with`, signals TERM, INT, HUP, USR1 and USR2 and the time limit are requests to stop.

    For the main thread. Within another one, also those that have reached that.
    """

    def __init__(self) -> None:
        self._signals: list[signal.Signals] = []
        self._limit: Limit | None = None
        self._end: float | None = None
        self._late = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._outer: StopRequests | None = None

    def __enter__(self) -> StopRequests:
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        outer = getattr(self._handlers[_SIGNALS[0]], "__self__", None)
        if isinstance(outer, StopRequests):
            self._outer = outer
            self._signals[:0] = outer._signals
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def ignore(self) -> None:
        """Ignores signals from now on, also after the `with`: this process is about to end."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
            self._handlers[number] = signal.SIG_IGN
        if self._outer:
            self._outer.ignore()

    def watch(self, limit: Limit) -> None:
        """Makes the limit, when it is near, a request to stop."""
        self._limit, self._end = limit, limit.ask()

    @property
    def end(self) -> float | None:
        """When the scheduler will end the job, in Unix time, as it last said; None if unlimited or unknown."""
        return self._end

    @property
    def reason(self) -> str | None:
        """The first request: a signal's name or TIME_LIMIT; None if there is none."""
        if self._signals:
            return self._signals[0].name
        if not self._late and self._is_late():
            self._late = True
        return TIME_LIMIT if self._late else None

    @property
    def reason_of_ranks(self) -> str | None:
        """Why ranks may have stopped without a request from here: TIME_LIMIT if Slurm may have warned them of it."""
        if self._limit and self._end and time.time() >= self._end - self._limit.margin - EARLY_SECONDS:
            return TIME_LIMIT
        return None

    @property
    def impatient(self) -> bool:
        """Whether Ctrl-C was pressed twice."""
        return self._signals.count(signal.SIGINT) > 1

    def _is_late(self) -> bool:
        if not self._limit or not self._end or time.time() < self._end - self._limit.margin:
            return False
        end = self._limit.ask()  # an administrator may have extended it
        self._end = end or self._end
        return time.time() >= self._end - self._limit.margin

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))
