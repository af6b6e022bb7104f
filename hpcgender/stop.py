"""Stop requests by signals and a time limit, which all ranks agree on and obey at the same step."""

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
_TIME_LIMIT = 1000  # above all signals: of several requests the highest number wins

Item = TypeVar("Item")


class StopSignal:
    """A context in which SIGTERM, SIGUSR1, SIGUSR2 and SIGINT request a stop; a second SIGINT interrupts the process.

    Unless `stop_after` is 0, a stop is also requested that many minutes after the start of the job (JOBS_STARTED, or
    else of this process). Enter it in the main thread, after the process group, as ranks that wait for others there
    notice no request, and leave it after the last checkpoint.
    """

    def __init__(self, stop_after: float = 0.0, timeout: timedelta = timedelta(minutes=10)) -> None:
        self.reason: str | None = None
        """Why all ranks stop, once they have agreed: the name of a signal, or the time limit."""
        self._stop_after = stop_after
        self._timeout = timeout
        self._began = time.monotonic() - job_age()
        self._asked = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._group: Any = None
        self._pending: tuple[torch.Tensor, Any] | None = None

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
        """The reason to stop, or None. Collective: every rank must call it, e.g. once a step; all get the same answer.

        With several ranks, a call starts an asynchronous all-reduce on the CPUs (gloo) and returns the result of the
        previous one, so that no step waits. RuntimeError if a rank is lost, or does not answer within `timeout`.
        """
        if self.reason:
            return self.reason
        asked = self._asked or (_TIME_LIMIT if self._is_late() else 0)
        if ranks.world_size > 1:
            asked, own = 0, asked
            if self._pending:
                result, work = self._pending
                work.wait()
                asked = int(result)
            if not asked:
                self._group = self._group or dist.new_group(backend="gloo", timeout=self._timeout)
                request = torch.tensor(own)
                work = dist.all_reduce(request, dist.ReduceOp.MAX, group=self._group, async_op=True)
                self._pending = request, work
        if asked == _TIME_LIMIT:
            self.reason = f"--stop-after {self._stop_after:g}"
        elif asked:
            self.reason = signal.Signals(asked).name
        return self.reason

    def until_requested(self, batches: Generator[Item], steps: int, ranks: Ranks) -> Iterator[Item]:
        """Yields the batches until a stop is requested; then `reason` is set and `batches` closed.

        Calls `requested` before each of `steps` global batches, even where this rank has no images in the last one.
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
        if number == signal.SIGINT:  # no print, which the signal may have interrupted
            os.write(2, b"hpcgender: stopping after this step; interrupt again to stop immediately\n")
        self._asked = number


def job_age() -> float:
    """Seconds since the start of the job, if JOBS_STARTED is set, or else of this process."""
    if STARTED in os.environ:
        return time.time() - float(os.environ[STARTED])
    # proc(5): field 22, in clock ticks since boot; field 2 is a name in parentheses, which may contain spaces.
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
