"""Progress with rate and time left: a live bar on a terminal, a plain line now and then in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
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

T = TypeVar("T")

LOG_EVERY_S = 10.0


class RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the `total` items while telling stderr how far it is; `what` names the work, as in "packing train"."""
    start = last = time.monotonic()
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY_S and done < total:
            last = now
            rate = done / (now - start)
            print(f"{what}: {done}/{total}, {rate:.0f}/s, {(total - done) / rate:.0f} s left", file=sys.stderr)
