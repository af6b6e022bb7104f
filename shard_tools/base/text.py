"""Numbers, durations, names and tables as logs, terminals and pages show them."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "\N{EN DASH}"
"""In place of a number that is not known."""

LOG_WIDTH = 110
"""Characters in a line of a table where there is no terminal."""

MAX_NAME = 36
"""Characters of a row's name, its first cell; longer ones are cut."""


def duration(seconds: float) -> str:
    """A duration in its two largest units: 45s, 12m05s, 3h12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def seconds_of(text: str) -> float:
    """The seconds of a duration that `duration` wrote. Raises ValueError if it is none."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or not found:
        raise ValueError(f"{text!r} is no duration")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in per cent; NOTHING for nan."""
    return NOTHING if math.isnan(fraction) else f"{fraction * 100:.{digits}f} %"


def byte_size(count: float) -> str:
    """Bytes in powers of 1000: 0.4 MB, 1,234.5 MB, 12.3 GB."""
    return f"{count / 1e6:,.1f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"


def utc(seconds: float | None = None) -> str:
    """A Unix time, or now, as ISO 8601 has it in UTC: 2025-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def plural(number: int, noun: str) -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text on one line; characters that would control a terminal are replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass(frozen=True)
class Table:
    """Rows of text. The first column, which names the row, and those in `left` are aligned left, the others right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    caption: str = ""
    left: frozenset[str] = frozenset()
    max_name: int | None = MAX_NAME
    """Characters of the first column; None: as many as it needs."""
    fold_name: bool = False
    """Whether a name that is too long, for the column or for the line, is folded instead of cut."""


def no_style(column: str, cell: str) -> str:
    """No cell has a style of its own."""
    return ""


def print_tables(*tables: Table, style: Callable[[str, str], str] = no_style) -> None:
    """Prints tables to stdout, a blank line between them: as wide as the terminal, elsewhere LOG_WIDTH and plain.

    No line ends in spaces. On a terminal `style(column, cell)` is a cell's rich style, such as "green". A last column
    that is aligned left is folded where the line is too short.
    """
    print(text_of(tables, style))


def text_of(tables: Sequence[Table], style: Callable[[str, str], str] = no_style, width: int | None = None) -> str:
    """What `print_tables` prints, without the last line's end; `width` is that of a line in place of the terminal's."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn: list[RichTable | Text] = []
    for table in tables:
        if drawn:
            drawn.append(Text())
        if table.title:
            drawn.append(Text(printable(table.title), style="bold"))
        shown = RichTable(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for place, column in enumerate(table.columns):
            left = place == 0 or column in table.left
            folds = (left and place == len(table.columns) - 1 > 0) or (place == 0 and table.fold_name)
            shown.add_column(
                Text(printable(column)),
                justify="left" if left else "right",
                no_wrap=not folds,
                overflow="fold" if folds else "ellipsis",
                max_width=None if place else table.max_name,
            )
        for row in table.rows:
            cells = zip(table.columns, row, strict=True)
            shown.add_row(*(Text(printable(cell), style=style(column, cell)) for column, cell in cells))
        drawn.append(shown)
        if table.caption:
            drawn.append(Text(printable(table.caption), style="dim"))
    return rendered(drawn, width)


def print_facts(facts: Mapping[str, str], title: str = "") -> None:
    """Prints names and values in two columns, below a title; values that are too long are folded."""
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=10)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(Text(printable(name)), Text(printable(value)))
    print(rendered([Text(printable(title), style="bold"), grid] if title else [grid]))


def rendered(drawn: Sequence[Any], width: int | None = None) -> str:
    """rich's renderables as lines without spaces at their ends: with colours on a terminal, plain elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, width=width or (None if sys.stdout.isatty() else LOG_WIDTH))
    with console.capture() as captured:
        for one in drawn:
            console.print(one)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))
