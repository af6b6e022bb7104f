"""The problems found: one line each, at most 20 of one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LINES = 20
"""Lines for one file; the rest is only counted."""


class Report:
    """Problems by file. It is pickled to be returned by the processes that read shards."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self._more: Counter[str] = Counter()

    def add(self, where: Path | str, what: str) -> None:
        """Notes one problem: `where` it is, a path, and `what` is wrong there."""
        lines = self._lines.setdefault(str(where), [])
        if len(lines) < LINES:
            # Names come from damaged files too: a line break or an escape code in one must not reach the terminal.
            lines.append("".join(c if c.isprintable() else "?" for c in f"{where}: {what}"))
        else:
            self._more[str(where)] += 1

    def include(self, other: Report) -> None:
        """Adds the problems of another report."""
        for where, lines in other._lines.items():
            mine = self._lines.setdefault(where, [])
            room = LINES - len(mine)
            mine.extend(lines[:room])
            self._more[where] += len(lines[room:]) + other._more[where]

    def lines(self) -> Iterator[str]:
        """A line for each problem, those of one file together."""
        for where, lines in self._lines.items():
            yield from lines
            if self._more[where]:
                yield f"{where}: and {self._more[where]} more"

    @property
    def count(self) -> int:
        """Number of problems."""
        return sum(map(len, self._lines.values())) + self._more.total()

    def __bool__(self) -> bool:
        return bool(self._lines)
