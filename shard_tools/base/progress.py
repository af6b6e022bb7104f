"""Progress with rate and time left: a live bar on a terminal, a plain line now and then in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from shard_tools.base.text import duration

T = TypeVar("T")

LOG_EVERY_S = 10.0


class RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Prints the progress of `total` items to stderr: yields the function to call with the number newly done."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= LOG_EVERY_S and done < total:
            last = now
            rate = done / (now - start)
            print(f"{what}: {done}/{total}, {rate:.0f}/s, {duration((total - done) / rate)} left", file=sys.stderr)

    yield advance


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the `total` items and prints the progress to stderr; `what` names the work, as in "drawing faces"."""
    with progress(what, total) as advance:
        for item in items:
            yield item
            advance(1)
