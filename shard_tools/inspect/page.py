"""The page: tables, histograms and faces of a data set in one HTML file that needs no other and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from shard_tools.base.page import card, document, fact_list, text_table, tile_list
from shard_tools.inspect.charts import bar_chart
from shard_tools.inspect.faces import SIDE, Face
from shard_tools.inspect.statistics import ALL, Breakdown, Statistics
from shard_tools.inspect.tables import header, largest, megabytes, percent, tables
from shard_tools.manifest import Manifest

STYLE = """
svg { display: block; width: 100%; min-width: 430px; height: auto; margin-bottom: .8rem; }
.tick, .axis { fill: var(--faint); font-size: 12px; } .grid { stroke: var(--line); }
.s0 { fill: var(--c0); } .s1 { fill: var(--c1); } .s2 { fill: var(--c2); } .one { fill: var(--one); }
"""


def page(manifest: Manifest, statistics: Statistics, faces: Sequence[Face], title: str, subtitle: str) -> str:
    """The page as HTML. Whatever comes from the data set is escaped, and the page itself forbids all loading."""
    drawn = charts(statistics)
    cards = "".join(
        card(table.title, drawn.get(table.topic, ""), text_table(table.columns, table.rows))
        for table in tables(statistics)
    )
    shown = f'<p>{escape(subtitle)}</p><div class="faces">\n{"".join(map(figure, faces))}</div>'
    return document(
        title,
        tile_list(tiles(statistics))
        + card("data set", fact_list(header(manifest, statistics)))
        + f'<div class="cards">\n{cards}</div>\n'
        + card("faces", shown),
        STYLE,
    )


def tiles(statistics: Statistics) -> list[tuple[str, str]]:
    """The few numbers that come first: name and value."""
    everyone = statistics.subjects.get(ALL)
    found = [
        ("images", f"{statistics.images:,}"),
        *(
            (f"{name} ({percent(count, statistics.images)})", f"{count:,}")
            for code, (name, count) in enumerate(
                zip(statistics.genders, statistics.by_split.counts.sum(0), strict=True)
            )
            if count
        ),
        ("subjects", f"{everyone.subjects:,}" if everyone else ""),
        ("in shards", megabytes(statistics.shard_bytes)),
    ]
    return [(name, value) for name, value in found if value]


def charts(statistics: Statistics) -> dict[str, str]:
    """The histograms that have anything to show, by the topic of their table."""
    found = {
        "age": ("Images by age and gender", "years", statistics.by_five_years),
        "group": ("Images by group and gender", "group", largest(statistics.by_group)),
        "subjects": ("Subjects by their number of images", "images of one subject", statistics.per_subject),
        "bytes": ("Images by size", "KB", statistics.by_size),
    }
    return {topic: chart(*what, statistics.genders) for topic, what in found.items() if what[2].names}


def chart(title: str, axis: str, bars: Breakdown, genders: Sequence[str]) -> str:
    """A histogram, with a legend if it has more than one colour."""
    if bars.counts.shape[1] == 1:
        series, legend = [("", "one")], ""
    else:
        shown = [code for code in range(len(genders)) if bars.counts[:, code].any()]
        bars = Breakdown(bars.names, bars.counts[:, shown])
        series = [(genders[code], f"s{code}") for code in shown]
        names = "".join(f'<span><i class="b{code}"></i>{escape(genders[code])}</span>' for code in shown)
        legend = f'<div class="legend">{names}</div>'
    return f'{legend}<div class="scroll" tabindex="0">{bar_chart(title, axis, bars, series)}</div>'


def figure(face: Face) -> str:
    """One face with its labels."""
    if face.jpeg is None:
        picture = '<div class="none">does not decode</div>'
    else:
        data = base64.b64encode(face.jpeg).decode()
        picture = (
            f'<img src="data:image/jpeg;base64,{data}" alt="{escape(face.description)}" '
            f'width="{SIDE}" height="{SIDE}" loading="lazy">'
        )
    *lines, key = face.details
    below = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<figure>{picture}<figcaption><div class="mark"><b class="b{min(face.gender, 2)}">{escape(face.name)}</b>'
        f"<span>{escape(face.age)}</span></div>{below}"
        f'<div class="key">{escape(key)}</div></figcaption></figure>\n'
    )
