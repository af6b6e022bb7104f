"""The page: tables, histograms and faces of a data set in one HTML file that needs no other and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from shard_tools.inspect.charts import bar_chart
from shard_tools.inspect.faces import SIDE, Face
from shard_tools.inspect.sheet import ACCENTS
from shard_tools.inspect.statistics import ALL, Breakdown, Statistics
from shard_tools.inspect.tables import Table, header, largest, megabytes, percent, tables
from shard_tools.manifest import Manifest

LIGHT = "; ".join(f"--c{code}: {accent}" for code, accent in enumerate(ACCENTS))
STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1c1b19; --faint: #5f5d57; --line: #e2e0da;
  --on: #fff; --one: #3d6b57; }
@media (prefers-color-scheme: dark) { :root { --paper: #161614; --card: #21211e; --ink: #eceae4; --faint: #a7a49b;
  --line: #38372f; --c0: #f08a4b; --c1: #58b0e6; --c2: #a3a19a; --on: #14130f; --one: #7dbb9e; } }
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(1rem, 3vw, 2.5rem); background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .7rem; font-size: 1.05rem; }
p { margin: .2rem 0; color: var(--faint); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 1.4rem 0; padding: 0; list-style: none; }
.tiles li { flex: 1 1 130px; padding: .7rem 1rem; border: 1px solid var(--line); border-radius: 12px;
  background: var(--card); color: var(--faint); }
.tiles b { display: block; color: var(--ink); font-size: 1.45rem; line-height: 1.25; font-weight: 650;
  white-space: nowrap; }
.cards { columns: 2 480px; column-gap: 16px; }
.cards .card { display: inline-block; width: 100%; vertical-align: top; break-inside: avoid; }
.card { margin-bottom: 16px; padding: 1.1rem 1.2rem; border: 1px solid var(--line); border-radius: 14px;
  background: var(--card); }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid var(--line); text-align: right; font-weight: 400; }
th:first-child { padding-left: 0; text-align: left; max-width: 10rem; overflow: hidden; text-overflow: ellipsis; }
thead th { color: var(--faint); font-size: .86rem; } tr:last-child > * { border-bottom: 0; }
svg { display: block; width: 100%; min-width: 430px; height: auto; margin-bottom: .8rem; }
.tick, .axis { fill: var(--faint); font-size: 12px; } .grid { stroke: var(--line); }
.s0 { fill: var(--c0); } .s1 { fill: var(--c1); } .s2 { fill: var(--c2); } .one { fill: var(--one); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-bottom: .5rem; color: var(--faint); }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 3px; }
.b0 { background: var(--c0); } .b1 { background: var(--c1); } .b2 { background: var(--c2); }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(146px, 1fr)); gap: 14px; margin-top: 1rem; }
figure { min-width: 0; margin: 0; }
.faces img, .none { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; border-radius: 9px;
  background: var(--line); }
.none { display: grid; place-items: center; color: var(--faint); }
figcaption { font-size: .86rem; line-height: 1.4; }
figcaption div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption .mark { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .4em;
  margin: .4rem 0 .15rem; }
.mark b { padding: 0 .6em; border-radius: 1em; color: var(--on); font-weight: 600; }
figcaption .key { color: var(--faint); font-size: .74rem; white-space: normal; overflow-wrap: anywhere; }
"""


def page(manifest: Manifest, statistics: Statistics, faces: Sequence[Face], title: str, subtitle: str) -> str:
    """The page as HTML. Whatever comes from the data set is escaped, and the page itself forbids all loading."""
    drawn = charts(statistics)
    cards = "".join(table_card(table, drawn.get(table.topic, "")) for table in tables(statistics))
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(line)}</dd>" for name, line in header(manifest, statistics).items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>:root {{ {LIGHT} }}{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<ul class="tiles">{"".join(f"<li><b>{escape(value)}</b>{escape(name)}</li>" for name, value in tiles(statistics))}</ul>
<section class="card"><h2>data set</h2><dl>{facts}</dl></section>
<div class="cards">
{cards}</div>
<section class="card"><h2>faces</h2><p>{escape(subtitle)}</p><div class="faces">
{"".join(map(figure, faces))}</div></section>
</main>
</body>
</html>
"""


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


def table_card(table: Table, chart: str) -> str:
    """A table under its title, and the histogram of the same labels between them if there is one."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(
        f'<tr><th scope="row" title="{escape(row[0])}">{escape(row[0])}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    return (
        f'<section class="card"><h2>{escape(table.title)}</h2>{chart}<div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>\n"
    )


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
