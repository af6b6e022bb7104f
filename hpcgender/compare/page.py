"""A comparison as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hpcgender.compare.charts import charts, drawn_alone
from hpcgender.compare.contenders import Contender
from hpcgender.compare.rows import Comparison
from hpcgender.compare.tables import tables
from hpcgender.evaluate.results import GroupTable
from hpcgender.report.figures import STYLE, grid, marks
from hpcgender.report.words import interval, number, percent, points
from shard_tools.base.page import card, document, fact_list, text_table, tile_list

NOTES = {
    "told": "Intervals of 95 %: the bootstrap's that draws subjects with their images, or Wilson's where no subject is "
    "known. They are of each run alone: whether two runs differ stands below.",
    "costs": "Multiply-accumulates are counted for one image; times are medians, in float32.",
    "training": "MB an image: activations that a step keeps. Most MB: the most that one process held. Times are of the "
    "machines that trained, and compare only where these were alike.",
    "differences": "On the same images. McNemar's test takes images as independent; the interval draws subjects "
    "with all of their images, and is the one to go by where a subject has several. Holm's p is corrected for the "
    "number of pairs.",
}


def page(comparison: Comparison, contenders: Sequence[Contender]) -> str:
    """The page as HTML."""
    data = comparison.data
    of_what = f"{Path(data.path).name}, {data.split}"
    facts = {
        "data": of_images(comparison),
        "manifest": data.manifest,
        "measured on": comparison.device,
        **{f"{contender.name}": said_of(contender) for contender in contenders},
    }
    shown = "".join(
        card(table.title, f"<p>{escape(NOTES[table.topic])}</p>", text_table(table.columns, table.rows))
        for table in tables(comparison)
    )
    drawn = {title: drawn_alone(draw) for title, draw in charts(comparison, contenders).items()}
    return document(
        f"Comparison on {of_what}",
        tile_list(tiles(comparison))
        + card("what is compared", fact_list(facts))
        + shown
        + card("charts", marks([contender.name for contender in contenders]), grid(drawn))
        + f'<div class="cards">\n{group_cards(contenders)}</div>\n',
        STYLE,
    )


def of_images(comparison: Comparison) -> str:
    """The images that all were evaluated on."""
    data = comparison.data
    subjects = f" of {data.subjects:,} subjects" if data.subjects else ""
    return f"{data.path}, {data.split}: {data.images:,} images{subjects}"


def said_of(contender: Contender) -> str:
    """The checkpoint and where it comes from."""
    checkpoint = contender.evaluation.checkpoint
    revision = f", git {checkpoint.revision[:12]}{'+' if checkpoint.revision.endswith('+') else ''}"
    mirrored = ", each image also mirrored" if contender.evaluation.options.flip else ""
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
        found.append((f"points: {comparison.pairs[0].first} minus {comparison.pairs[0].second}", points(accuracy)))
    return found


def group_cards(contenders: Sequence[Contender]) -> str:
    """A table for each table of groups that all evaluations have: a column for each run."""
    cards = []
    for table in contenders[0].evaluation.tables:
        found = [contender.evaluation.table(table.column, table.measure) for contender in contenders]
        same = [one for one in found if one]
        if len(same) == len(contenders):
            title = f"{'accuracy' if table.measure == 'accuracy' else 'age MAE, years,'} by {table.column}"
            columns = (table.column, "images", *(contender.name for contender in contenders))
            cards.append(card(title, text_table(columns, group_rows(same))))
    return "".join(cards)


def group_rows(tables: Sequence[GroupTable]) -> list[tuple[str, ...]]:
    """A row for each group; small ones are marked."""
    of_one = tables[0].measure == "accuracy"
    scores = [{group.value: group.score for group in table.groups} for table in tables]
    rows = []
    for group in tables[0].groups:
        cells = []
        for of_run in scores:
            score = of_run[group.value]
            value = percent(score.value) if of_one else number(score.value)
            cells.append(f"{value} ({interval(score, of_one=of_one)})")
        rows.append((group.value, f"{group.images:,}{' (few)' if group.small else ''}", *cells))
    return rows
