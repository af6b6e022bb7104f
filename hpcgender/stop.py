"""Requests to stop: signals and a time limit, on which all ranks agree before any of them acts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from hpcgender.distributed import Ranks
from shard_tools.base.contracts import STARTED

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
_TIME_LIMIT = 1000  # above all signals: of several requests the highest number is told

Item = TypeVar("Item")


class StopSignal:
    """While it is entered, SIGTERM, SIGUSR1, SIGUSR2 and SIGINT ask the run to stop; a second SIGINT interrupts it.

    So does the time, unless `stop_after` is 0: that many minutes after the job's beginning, which is JOBS_STARTED, or
    else this process's. Enter it in the main thread as early as can be, and leave it when the last checkpoint is
    written.
    """

    def __init__(self, stop_after: float = 0.0, timeout: timedelta = timedelta(minutes=10)) -> None:
        self.reason: str | None = None
        """Why all ranks stop, once they have agreed: a signal's name, or the time limit."""
        self._stop_after = stop_after
        self._timeout = timeout
        self._began = time.monotonic() - job_age()
        self._asked = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._group: Any = None
        self._asking: tuple[torch.Tensor, Any] | None = None

    def __enter__(self) -> StopSignal:
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not Python's

    @property
    def out_of_time(self) -> bool:
        """Whether all ranks stop because of the time limit."""
        return bool(self.reason) and self.reason not in signal.Signals.__members__

    def requested(self, ranks: Ranks) -> str | None:
        """Why to stop, or None. Every rank must ask equally often, as once a step; all get the same answer each time.

        Several ranks hear of a request by the answer to the next question, so that nobody waits for an answer: it went
        round during the step, from CPU to CPU, and the GPU never knows. `timeout` bounds the wait for a rank that is
        gone. RuntimeError if one is.
        """
        if self.reason:
            return self.reason
        asked = self._asked or (_TIME_LIMIT if self._is_late() else 0)
        if ranks.world_size > 1:
            asked, own = 0, asked
            if self._asking:
                answer, work = self._asking
                work.wait()
                asked = int(answer)
            if not asked:
                self._group = self._group or dist.new_group(backend="gloo", timeout=self._timeout)
                question = torch.tensor(own)
                work = dist.all_reduce(question, dist.ReduceOp.MAX, group=self._group, async_op=True)
                self._asking = question, work
        if asked == _TIME_LIMIT:
            self.reason = f"--stop-after {self._stop_after:g} minutes"
        elif asked:
            self.reason = signal.Signals(asked).name
        return self.reason

    def until_requested(self, batches: Generator[Item], steps: int, ranks: Ranks) -> Iterator[Item]:
        """The batches, until a stop is requested: then `reason` is set, and `batches` closed.

        Asks before each of `steps` global batches, also on a rank whose part of the last is left out as empty.
        """
        with closing(batches):
            for _ in range(steps):
                if self.requested(ranks):
                    return
                yield from islice(batches, 1)

    def _is_late(self) -> bool:
        return 0 < 60 * self._stop_after <= time.monotonic() - self._began

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:  # not print: the signal may have come in the midst of one
            os.write(2, b"hpcgender: stopping after this step; interrupt again to stop at once\n")
        self._asked = number


def job_age() -> float:
    """Seconds since the job began, if its launcher said when, or else since this process did."""
    if STARTED in os.environ:
        return time.time() - float(os.environ[STARTED])
    # proc(5): the 22nd field, in clock ticks after boot; the second is a name in parentheses that may hold anything.
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
