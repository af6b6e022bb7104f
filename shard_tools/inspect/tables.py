"""Statistics as tables of text, for a terminal or a job's log, and as one JSON object."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from shard_tools.inspect.statistics import ALL, Breakdown, Ints, Quantiles, Statistics, printable
from shard_tools.manifest import Manifest

LOG_WIDTH = 110
"""Columns, where there is no terminal to ask."""
MAX_NAME = 36
"""Columns of a row's name; longer ones are cut. JSON has them whole."""
MAX_GROUPS = 20
"""Rows of the table of groups; the rest is one row. JSON has them all."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column names the row."""

    topic: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(statistics: Statistics) -> list[Table]:
    """What there is to tell, a table each; those that would say nothing are left out."""
    found = [
        by_gender("split", statistics.by_split, statistics.genders, total=len(statistics.by_split.names) > 1),
        by_gender("age", statistics.by_age, statistics.genders) if statistics.by_age.known else None,
        of_quantiles("years", "years of age", "gender", statistics.ages, "{:.4g}"),
        by_gender("group", largest(statistics.by_group), statistics.genders) if statistics.by_group.known else None,
        of_subjects(statistics),
        of_quantiles("bytes", "bytes of an image", "split", without_repeated_total(statistics.sizes), "{:,.0f}"),
    ]
    return [table for table in found if table and table.rows]


def header(manifest: Manifest, statistics: Statistics) -> dict[str, str]:
    """What the data set is, in a few lines: name of the line and text."""
    options = ", ".join(
        f"{name.replace('_', ' ')} {'yes' if value is True else 'no' if value is False else value}"
        for name, value in manifest.options.items()
        if value is not None and value != ""
    )
    lines = {
        "data set": f"{manifest.root.resolve()}",
        "source": f"{manifest.source}: {manifest.convention}",
        "options": options,
        "images": f"{statistics.images:,}, together {megabytes(statistics.image_bytes)}",
        "shards": f"{statistics.shards:,}, together {megabytes(statistics.shard_bytes)}",
        "copies": f"{plural(statistics.copies, 'image')} with the same bytes as another one"
        if statistics.copies
        else "",
        "quarantined": f"{plural(manifest.quarantined, 'image')} left out when the data set was packed",
        "unknown": ", ".join(unknown_labels(statistics)),
    }
    return {name: printable(line) for name, line in lines.items() if line}


def unknown_labels(statistics: Statistics) -> list[str]:
    """The labels that no image has."""
    known = {
        "ages": statistics.by_age.known,
        "groups": statistics.by_group.known,
        "subjects": bool(statistics.subjects),
    }
    return [name for name, is_known in known.items() if not is_known]


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """Bytes in the unit that suits them, of powers of 1000."""
    if size < 1e6:
        return f"{size / 1e3:,.1f} KB"
    return f"{size / 1e6:,.1f} MB" if size < 1e10 else f"{size / 1e9:,.1f} GB"


def by_gender(what: str, breakdown: Breakdown, genders: Sequence[str], total: bool = False) -> Table:
    """Images of each name by gender; a gender that nobody has gets no column."""
    counts = breakdown.counts
    names = breakdown.names
    if total:
        names, counts = (*names, ALL), np.vstack([counts, counts.sum(0)])
    shown = [code for code in range(len(genders)) if counts[:, code].any()]
    whole = max(int(breakdown.counts.sum()), 1)
    rows = [
        (name, f"{row.sum():,}", percent(row.sum(), whole), *(f"{row[code]:,}" for code in shown), share(row))
        for name, row in zip(names, counts, strict=True)
        if row.any()
    ]
    columns = (what, "images", "of all", *(genders[code] for code in shown), f"{genders[0]} share")
    return Table(what, f"images by {what} and gender", columns, tuple(rows))


def share(row: Ints) -> str:
    """The first class among images whose gender is known."""
    return percent(row[0], row[:-1].sum()) if row[:-1].any() else "-"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def largest(breakdown: Breakdown) -> Breakdown:
    """The first rows, and the others added up if there are too many."""
    if len(breakdown.names) <= MAX_GROUPS + 1:
        return breakdown
    names = (*breakdown.names[:MAX_GROUPS], f"{len(breakdown.names) - MAX_GROUPS:,} others")
    return Breakdown(
        names, np.vstack([breakdown.counts[:MAX_GROUPS], breakdown.counts[MAX_GROUPS:].sum(0, keepdims=True)])
    )


def of_quantiles(topic: str, title: str, what: str, found: Mapping[str, Quantiles], form: str) -> Table:
    columns = (what, "images", "min", "5 %", "median", "95 %", "max")
    rows = [
        (name, f"{q.images:,}", *(form.format(value) for value in (q.min, q.p5, q.median, q.p95, q.max)))
        for name, q in found.items()
    ]
    return Table(topic, title, columns, tuple(rows))


def of_subjects(statistics: Statistics) -> Table:
    columns = ("split", "subjects", "min", "median", "max", "of both genders", "images without")
    rows = [
        (
            name,
            f"{found.subjects:,}",
            f"{found.min:,}",
            f"{found.median:,g}",
            f"{found.max:,}",
            f"{found.both_genders:,}",
            f"{found.images_without:,}",
        )
        for name, found in without_repeated_total(statistics.subjects).items()
    ]
    return Table("subjects", "subjects, and images of one subject", columns, tuple(rows))


def without_repeated_total(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without the row of all if there is one split only."""
    return {name: row for name, row in found.items() if name != ALL or len(found) != 2}


@contextmanager
def printed() -> Iterator[Console]:
    """A console whose text is printed at the end: plain and of a fixed width unless stdout is a terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    with console.capture() as captured:
        yield console
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def print_tables(console: Console, manifest: Manifest, statistics: Statistics) -> None:
    """Prints header and tables."""
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, line in header(manifest, statistics).items():
        grid.add_row(Text(name), Text(line))
    console.print(grid)
    for table in tables(statistics):
        shown = RichTable(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for number, column in enumerate(table.columns):
            shown.add_column(
                Text(column),
                justify="right" if number else "left",
                no_wrap=True,
                overflow="ellipsis",
                min_width=None if number else 12,
                max_width=None if number else MAX_NAME,
            )
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(shown)


def as_json(manifest: Manifest, statistics: Statistics) -> dict[str, Any]:
    """The same numbers as a JSON object."""

    def of_genders(breakdown: Breakdown) -> dict[str, dict[str, int]]:
        return {
            name: {"images": int(row.sum()), **dict(zip(statistics.genders, row.tolist(), strict=True))}
            for name, row in zip(breakdown.names, breakdown.counts, strict=True)
        }

    return {
        "data": str(manifest.root.resolve()),
        "source": manifest.source,
        "convention": manifest.convention,
        "options": manifest.options,
        "manifest_sha256": manifest.sha256,
        "images": statistics.images,
        "image_bytes": statistics.image_bytes,
        "shards": statistics.shards,
        "shard_bytes": statistics.shard_bytes,
        "copies": statistics.copies,
        "quarantined": manifest.quarantined,
        "by_split": of_genders(statistics.by_split),
        "by_age": of_genders(statistics.by_age),
        "by_group": of_genders(statistics.by_group),
        "years": {name: asdict(found) for name, found in statistics.ages.items()},
        "subjects": {name: asdict(found) for name, found in statistics.subjects.items()},
        "bytes": {name: asdict(found) for name, found in statistics.sizes.items()},
    }
