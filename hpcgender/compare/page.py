"""A comparison as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcgender.compare.charts import chart_of, drawings
from hpcgender.compare.contenders import Contender
from hpcgender.compare.rows import Comparison
from hpcgender.compare.tables import tables
from hpcgender.evaluate.results import GroupTable
from hpcgender.report.words import difference, interval, number
from hpcgender.study.result_file import looked_at
from shard_tools.base.colours import SERIES
from shard_tools.base.figures import LETTERS, charts
from shard_tools.base.page import render
from shard_tools.base.text import Table, percent, plural


def page(comparison: Comparison, contenders: Sequence[Contender]) -> str:
    """The page as HTML."""
    data = comparison.data
    return render(
        "hpcgender.compare",
        "compare.html",
        title=f"Comparison on {Path(data.path).name}, {data.split}",
        tiles=tiles(comparison),
        facts={
            "data": images_of(comparison),
            "manifest": data.manifest,
            "measured on": comparison.device,
            **{contender.name: checkpoint_of(contender) for contender in contenders},
            **looked_at(contender.run.directory for contender in contenders if contender.run),
        },
        tables=tables(comparison),
        verdicts=comparison.verdicts,
        legend=[
            (LETTERS[place % len(LETTERS)], f"s{place % len(SERIES)}", contender.name)
            for place, contender in enumerate(contenders)
        ],
        charts=charts({title: chart_of(draw) for title, draw in drawings(comparison, contenders).items()}),
        groups=group_tables(contenders),
    )


def images_of(comparison: Comparison) -> str:
    """The images that all were evaluated on."""
    data = comparison.data
    subjects = f" of {plural(data.subjects, 'subject')}" if data.subjects else ""
    return f"{data.path}, {data.split}: {plural(data.images, 'image')}{subjects}"


def checkpoint_of(contender: Contender) -> str:
    """The checkpoint, its epoch and its git revision."""
    checkpoint = contender.results.checkpoint
    revision = f", git {checkpoint.revision[:12]}{'+' if checkpoint.revision.endswith('+') else ''}"
    mirrored = ", each image also mirrored" if contender.results.options.flip else ""
    return f"{checkpoint.path}, epoch {checkpoint.epoch}{mirrored}{revision if checkpoint.revision else ''}"


def tiles(comparison: Comparison) -> list[tuple[str, str]]:
    """The few numbers that come first."""
    best = max(comparison.rows, key=lambda row: (row.accuracy == row.accuracy, row.accuracy))
    fastest = min(comparison.rows, key=lambda row: row.one_ms)
    found = [("runs", f"{len(comparison.rows)}"), ("images", f"{comparison.data.images:,}")]
    if best.accuracy == best.accuracy:
        found.append((f"highest accuracy: {best.name}", percent(best.accuracy, 2)))
    found.append((f"fastest, one image: {fastest.name}", f"{number(fastest.one_ms, 1)} ms"))
    if len(comparison.pairs) == 1 and (accuracy := comparison.pairs[0].accuracy):
        found.append((f"points: {comparison.pairs[0].first} minus {comparison.pairs[0].second}", difference(accuracy)))
    return found


def group_tables(contenders: Sequence[Contender]) -> list[Table]:
    """A table for each table of groups that all evaluations have: a column for each run."""
    found = []
    for table in contenders[0].results.tables:
        others = [contender.results.table(table.column, table.measure) for contender in contenders]
        same = [one for one in others if one]
        if len(same) == len(contenders):
            title = f"{'accuracy' if table.measure == 'accuracy' else 'age MAE, years,'} by {table.column}"
            columns = (table.column, "images", *(contender.name for contender in contenders))
            found.append(Table(columns, tuple(group_rows(same)), title))
    return found


def group_rows(tables: Sequence[GroupTable]) -> list[tuple[str, ...]]:
    """A row for each group; small ones are marked."""
    by_accuracy = tables[0].measure == "accuracy"
    scores = [{group.value: group.score for group in table.groups} for table in tables]
    rows = []
    for group in tables[0].groups:
        cells = []
        for of_run in scores:
            score = of_run[group.value]
            value = percent(score.value) if by_accuracy else number(score.value)
            cells.append(f"{value} ({interval(score, fraction=by_accuracy)})")
        rows.append((group.value, f"{group.images:,}{' (few)' if group.small else ''}", *cells))
    return rows
