"""Figures by matplotlib in the house's colours: as SVG that is light or dark as its page is, and as PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shard_tools.base.page import ACCENTS

INK, FAINT, LINE, CARD, ONE = "#1c1b19", "#5f5d57", "#e2e0da", "#ffffff", "#3d6b57"
SERIES = ("#3d6b58", "#9a3d87", "#8a6500", "#3557a8", "#a83232", "#4d7a12")
"""Of runs beside each other, told apart by their markers and dashes too."""
MARKERS, LETTERS = ("o", "s", "^", "D", "v", "P"), "●■▲◆▼✚"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))

COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    LINE: "var(--line)",
    CARD: "var(--card)",
    ONE: "var(--one)",
    **{accent: f"var(--c{code})" for code, accent in enumerate(ACCENTS)},
    **{colour: f"var(--s{code})" for code, colour in enumerate(SERIES)},
}
"""What the page calls a colour that a figure is drawn in: figures draw in no other."""

STYLE = f"""
:root {{ {"; ".join(f"--s{code}: {colour}" for code, colour in enumerate(SERIES))} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --s0: #7dbb9e; --s1: #d98bca; --s2: #d5b04a; --s3: #92aef0;
  --s4: #ef8a80; --s5: #a5cf6a; }} }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 18px; }}
.chart svg {{ display: block; width: 100%; height: auto; }}
.chart text {{ font-family: inherit; }}
.chart figcaption {{ margin-bottom: .3rem; color: var(--ink); font-size: .95rem; font-weight: 600; }}
.legend b {{ margin-right: .15em; }}
"""
"""What a page with such figures adds to the house's style."""

WIDTH, HEIGHT = 400, 290
"""Of a figure, in points of a letter's size: as wide as a telephone, so that its letters are never small."""
DPI = 72

RC: dict[Any, Any] = {
    "font.size": 11.5,
    "axes.titlesize": 11.5,
    "axes.labelsize": 11.5,
    "legend.fontsize": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.facecolor": "none",
    "figure.facecolor": CARD,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
}


@contextmanager
def drawn_as_here() -> Iterator[None]:
    """Within it, matplotlib draws as the house does, whatever its user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure so many points wide and high, and its axes."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def as_svg(figure: Figure, title: str) -> str:
    """The figure as an `svg` element for a page with STYLE; `title` is what is said of it to those who cannot see it.

    Equal figures give equal text. Elements of several figures are told apart by their titles.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}), warnings.catch_warnings():
        # The letters are the browser's: that matplotlib has none for 女 only makes its width a guess.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return for_page(buffer.getvalue(), title)


def for_page(svg: str, title: str) -> str:
    """matplotlib's SVG file as an element of a page: without what a file needs, in the page's letters and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    name = escape(title)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        lambda found: f'<svg {found[1]} role="img" aria-label="{name}"><title>{name}</title>',
        svg,
        count=1,
    )
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"font: (?:(\d+|bold) )?([\d.]+)px [^;\"]*", in_letters_of_page, svg)
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, name)
    return svg.strip()


def in_letters_of_page(font: re.Match[str]) -> str:
    return f"font-size: {font[2]}px" + (f"; font-weight: {font[1]}" if font[1] else "")


def grid(charts: Mapping[str, Figure]) -> str:
    """Figures by their titles, beside each other as far as there is room."""
    drawn = (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{as_svg(figure, title)}</figure>\n'
        for title, figure in charts.items()
    )
    return f'<div class="charts">\n{"".join(drawn)}</div>\n'


def as_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG image, in the light colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def series(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of a run, by its place among those that are shown together."""
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[(number // len(SERIES) + number) % len(DASHES)],
    }


def percent_axis(axes: Axes, which: str) -> None:
    """Writes the numbers of an axis, parts of 1, as per cent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{value * 100:g} %")


def marks(names: Sequence[str]) -> str:
    """A legend of runs for a page, with their colours and markers."""
    return f'<div class="legend">{"".join(map(mark, range(len(names)), names))}</div>\n'


def mark(number: int, name: str) -> str:
    letter = LETTERS[number % len(LETTERS)]
    return f'<span><b style="color: var(--s{number % len(SERIES)})">{letter}</b> {escape(name)}</span>'
