"""A pool of processes: results come in order, and no worker outlives its parent. And parts of work that jobs share."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any, TypeVar

from shard_tools.base.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

_context: Any = None


class Workers:
    """`count` processes that have `context`, any object that can be pickled; with 1, this process alone."""

    def __init__(self, context: Any, count: int) -> None:
        self.context = context
        self.pool: ProcessPoolExecutor | None = None
        if count > 1:
            try:
                # Spawned, not forked: a fork of a process with threads may hang.
                self.pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(context,))
            except OSError as error:  # of the semaphores that they share, which glibc keeps in /dev/shm
                raise UserError(
                    f"cannot start {count} worker processes, which need /dev/shm: {error.strerror}; use --workers 1, "
                    "or have /dev/shm writable and with space"
                ) from None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Any, Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """`function(context, job)` of every job, in order; UserError if a process dies.

        All jobs are taken before this returns; workers start on the first ones meanwhile.
        """
        if not self.pool:
            return map(partial(function, self.context), list(jobs))
        futures: deque[Future[Result]] = deque()
        for job in jobs:
            try:
                futures.append(self.pool.submit(_call, function, job))
            except BlockingIOError as error:  # noqa: PERF203
                raise UserError(f"cannot start a worker process: {error.strerror}; use fewer --workers") from None
        return self._results(futures)

    def _results(self, futures: deque[Future[Result]]) -> Iterator[Result]:
        try:
            while futures:
                yield futures.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, perhaps out of memory: run the command again, with fewer --workers"
            ) from None


def _start(context: Any) -> None:
    """Prepares a worker: keeps the context, leaves Ctrl-C to the parent, and exits with it, even if that is killed."""
    global _context  # noqa: PLW0603
    _context = context
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(function: Callable[[Any, Job], Result], job: Job) -> Result:
    return function(_context, job)


def part_of(task: str) -> tuple[int, int]:
    """Which part `--task K/N` names, from 0, and of how many; the only one if it is empty. Raises UserError."""
    if not task:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", task)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--task {task} is not K/N with K from 1 to N, as in --task 3/16")
    return int(match[1]) - 1, int(match[2])
