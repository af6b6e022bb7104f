"""Numbers, durations, names and tables as logs, terminals and pages show them."""

from __future__ import annotations

import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

NOTHING = "\N{EN DASH}"
"""In place of a number that is not known."""

LOG_WIDTH = 110
"""Characters in a line of a table where there is no terminal."""

MAX_NAME = 36
"""Characters of a row's name, its first cell; longer ones are cut."""

_GAP, _FOLDED = 3, 16  # characters between columns; at least in a column whose cells are folded


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
    """Bytes in powers of 1000: 1.2 kB, 0.4 MB, 1,234.5 MB, 12.3 GB."""
    if 0 < count < 1e5:
        return f"{count / 1e3:,.1f} kB"
    return f"{count / 1e6:,.1f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"


def utc(seconds: float | None = None) -> str:
    """A Unix time, or now, as ISO 8601 has it in UTC: 2025-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def plural(number: int, one: str, many: str = "") -> str:
    """1 image, 2,000 images; `many` where an s is not enough, as in `image is`, `images are`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


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
    spare: tuple[str, ...] = ()
    """Columns that a terminal may be too narrow for, those that are left out first in front."""


def no_style(column: str, cell: str) -> str:
    """No cell has a style of its own."""
    return ""


def print_tables(*tables: Table, style: Callable[[str, str], str] = no_style) -> None:
    """Prints tables to stdout, a blank line between them: as wide as the terminal, elsewhere LOG_WIDTH and plain.

    No line ends in spaces. On a terminal `style(column, cell)` is a cell's rich style, such as "green". A last column
    that is aligned left is folded where the line is too short. Where that is not enough, spare columns are left out,
    which a line below says; where even that is not, each row becomes a block of lines. No cell is cut but long names.
    """
    print(text_of(tables, style))


def text_of(tables: Sequence[Table], style: Callable[[str, str], str] = no_style, width: int | None = None) -> str:
    """What `print_tables` prints, without the last line's end; `width` is that of a line in place of the terminal's."""
    from rich.text import Text

    terminal = shutil.get_terminal_size().columns if width is None and sys.stdout.isatty() else None
    drawn: list[Any] = []
    for table in tables:
        if drawn:
            drawn.append(Text())
        if table.title:
            drawn.append(Text(printable(table.title), style="bold"))
        narrowed, left_out = _narrowed(table, terminal) if terminal else (table, ())
        if terminal and _width(narrowed) > terminal:
            drawn += _blocks(table, style)
        else:
            drawn.append(_grid(narrowed, style))
            if left_out:
                drawn.append(Text(f"left out, as the terminal is narrow: {', '.join(left_out)}", style="dim"))
        if table.caption:
            drawn.append(Text(printable(table.caption), style="dim"))
    return rendered(drawn, width or terminal or max([LOG_WIDTH, *map(_width, tables)]))


def _narrowed(table: Table, room: int) -> tuple[Table, tuple[str, ...]]:
    """A table without as many of its spare columns as have to go, and those."""
    for count in range(len(table.spare)):
        kept = _without(table, table.spare[:count])
        if _width(kept) <= room:
            return kept, table.spare[:count]
    return _without(table, table.spare), table.spare


def _without(table: Table, columns: Sequence[str]) -> Table:
    places = [place for place, column in enumerate(table.columns) if column not in columns]
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def _folds(table: Table, place: int) -> bool:
    """Whether the cells of a column may be folded."""
    last = place == len(table.columns) - 1 > 0 and table.columns[place] in table.left
    return last or (place == 0 and table.fold_name)


def _width(table: Table) -> int:
    """The characters that a line of the table needs at least."""
    from rich.cells import cell_len

    total = _GAP * (len(table.columns) - 1)
    for place, column in enumerate(table.columns):
        width = max(cell_len(printable(cell)) for cell in (column, *(row[place] for row in table.rows)))
        if place == 0 and table.max_name:
            width = min(width, table.max_name)
        total += min(width, _FOLDED) if _folds(table, place) else width
    return total


def _grid(table: Table, style: Callable[[str, str], str]) -> Any:
    """A line for each row, below a line of the columns' names."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for place, column in enumerate(table.columns):
        folds = _folds(table, place)
        shown.add_column(
            Text(printable(column)),
            justify="left" if place == 0 or column in table.left else "right",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
            max_width=None if place else table.max_name,
        )
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        shown.add_row(*(Text(printable(cell), style=style(column, cell)) for column, cell in cells))
    return shown


def _blocks(table: Table, style: Callable[[str, str], str]) -> Iterator[Any]:
    """For each row its name, and a line for each other column."""
    from rich.table import Table as RichTable
    from rich.text import Text

    for name, *cells in table.rows:
        yield Text(printable(name), style="bold", overflow="fold")
        block = RichTable.grid(padding=(0, 2))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for column, cell in zip(table.columns[1:], cells, strict=True):
            block.add_row(Text(f"  {printable(column)}", style="dim"), Text(printable(cell), style=style(column, cell)))
        yield block


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

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_WIDTH
    console = Console(highlight=False, width=width or columns, height=100)  # without a height TERM=dumb has 80 columns
    with console.capture() as captured:
        for one in drawn:
            console.print(one)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))
