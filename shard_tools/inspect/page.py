"""The page of a data set: tables, histograms and faces in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from shard_tools.base.colours import ACCENTS, ONE
from shard_tools.base.figures import as_svg, chart_style, cut, new_figure
from shard_tools.base.page import render
from shard_tools.base.text import byte_size, percent
from shard_tools.inspect.faces import Face
from shard_tools.inspect.statistics import ALL, Breakdown, Statistics
from shard_tools.inspect.tables import header, largest, tables
from shard_tools.manifest import Manifest

WIDTH, HEIGHT = 640, 270
"""Of a histogram, points."""
LETTER = 6.6
"""Width of a letter of its labels, about."""


@dataclass(frozen=True)
class Histogram:
    """Bars, and the names of their colours if there are several."""

    svg: Markup
    legend: Mapping[int, str]
    """By class; empty for one series."""


def page(manifest: Manifest, statistics: Statistics, faces: Sequence[Face], title: str, subtitle: str) -> str:
    """The page as HTML."""
    return render(
        "shard_tools.inspect",
        "inspect.html",
        title=title,
        subtitle=subtitle,
        tiles=tiles(statistics),
        facts=header(manifest, statistics),
        tables=tables(statistics),
        histograms=histograms(statistics),
        faces=faces,
    )


def tiles(statistics: Statistics) -> list[tuple[str, str]]:
    """The few numbers that come first: name and value."""
    everyone = statistics.subjects.get(ALL)
    found = [
        ("images", f"{statistics.images:,}"),
        *(
            (f"{name} ({percent(count / statistics.images)})", f"{count:,}")
            for name, count in zip(statistics.genders, statistics.by_split.counts.sum(0), strict=True)
            if count
        ),
        ("subjects", f"{everyone.subjects:,}" if everyone else ""),
        ("in shards", byte_size(statistics.shard_bytes)),
    ]
    return [(name, value) for name, value in found if value]


def histograms(statistics: Statistics) -> dict[str, Histogram]:
    """The histograms that are not empty, by the topic of the table they stand above."""
    found = {
        "age": ("Images by age and gender", "years", statistics.by_five_years),
        "group": ("Images by group and gender", "group", largest(statistics.by_group)),
        "subjects": ("Subjects by their number of images", "images of one subject", statistics.per_subject),
        "bytes": ("Images by size", "KB", statistics.by_size),
    }
    return {
        topic: histogram(title, axis, bars, statistics.genders)
        for topic, (title, axis, bars) in found.items()
        if bars.names
    }


def histogram(title: str, axis: str, bars: Breakdown, genders: Sequence[str]) -> Histogram:
    """Bars of each name beside each other, a colour for each gender. `axis` is the label below the names.

    Each bar's number is shown at the pointer.
    """
    by_gender = bars.counts.shape[1] > 1
    shown = [code for code in range(bars.counts.shape[1]) if bars.counts[:, code].any()]
    hints: dict[str, str] = {}
    with chart_style():
        figure, axes = new_figure(WIDTH, HEIGHT)
        slot = 0.9 * WIDTH / len(bars.names)  # width of a name's bars, points, about
        width = min(0.84 / len(shown), 44 / slot)
        least = bars.counts.max() / HEIGHT  # so that a single image of millions is seen
        for place, code in enumerate(shown):
            colour = ACCENTS[min(code, len(ACCENTS) - 1)] if by_gender else ONE
            for number, (name, count) in enumerate(zip(bars.names, bars.counts[:, code].tolist(), strict=True)):
                if count:
                    x = number + (place - (len(shown) - 1) / 2) * width
                    (bar,) = axes.bar(x, max(count, least), 0.94 * width, color=colour)
                    bar.set_gid(f"bar-{number}-{code}")
                    hints[f"bar-{number}-{code}"] = f"{name}: {count:,} {genders[code] if by_gender else ''}".strip()
        axes.set_xlim(-0.5, len(bars.names) - 0.5)
        axes.set_xlabel(axis)
        label_names(axes, bars.names, slot)
        ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(0, max(bars.counts.max(), 1))
        axes.set_yticks(ticks)
        axes.set_ylim(0, ticks[-1])
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=False, axis="x")
        axes.tick_params(bottom=False, left=False)
        axes.spines["left"].set_visible(False)
    legend = {code: genders[code] for code in shown} if by_gender else {}
    return Histogram(as_svg(figure, title, hints), legend)


def label_names(axes: Axes, names: Sequence[str], slot: float) -> None:
    """Labels the bars with their names, those that there is room for, cut to that room."""
    longest = max(map(len, names)) * LETTER + 8
    every = 1 if len(names) <= 10 else max(-(-int(longest) // max(int(slot), 1)), 1)
    letters = max(int((slot * every - 4) / LETTER), 1)
    places = range(0, len(names), every)
    axes.set_xticks(places, [cut(names[place], letters) for place in places])
