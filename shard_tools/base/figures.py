"""Charts by matplotlib, without pyplot: SVG in the colours of its page, light or dark, and PNG in the light ones."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shard_tools.base.colours import CARD, FAINT, INK, LINE, NAMES, SERIES

MARKERS, LETTERS = ("o", "s", "^", "D", "v", "P"), "●■▲◆▼✚"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))

WIDTH, HEIGHT = 400, 290
"""Of a chart, points: as wide as a telephone, so that its letters are never small."""
DPI = 72

STYLE: dict[Any, Any] = {
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


@dataclass(frozen=True)
class Chart:
    """A chart as a page shows it."""

    title: str
    svg: Markup
    """An `svg` element."""


@contextmanager
def chart_style() -> Iterator[None]:
    """Within it, matplotlib draws in STYLE, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure of that size in points, and its axes."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def bare(axes: Axes) -> None:
    """Removes grid, frame and ticks."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def percent_axis(axes: Axes, which: str) -> None:
    """Labels an axis of fractions, "x" or "y", in per cent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{value * 100:g} %")


def series(number: int) -> dict[str, Any]:
    """matplotlib's colour, marker and dashes of a run, by its place among those shown together."""
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[(number // len(SERIES) + number) % len(DASHES)],
    }


def cut(name: str, letters: int) -> str:
    """A name of at most so many letters; a longer one ends in an ellipsis."""
    return name if len(name) <= letters else f"{name[: max(letters - 1, 1)]}\N{HORIZONTAL ELLIPSIS}"


def charts(figures: Mapping[str, Figure]) -> list[Chart]:
    """Figures by their titles, for a page."""
    return [Chart(title, as_svg(figure, title)) for title, figure in figures.items()]


def as_svg(figure: Figure, title: str, hints: Mapping[str, str] | None = None) -> Markup:
    """A figure as an `svg` element in the letters and colours of its page.

    `title` is its text for screen readers, and makes the ids of its elements unique on the page. `hints` has
    a text to show at the pointer for the `gid` of an artist. Equal figures give equal text.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}), warnings.catch_warnings():
        # The browser has the letters: those that matplotlib's font lacks only make its guess of their width wrong.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    root.remove(root[0])  # metadata
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', buffer.getvalue().decode()))
    hints = hints or {}
    for element in root.iter():
        element.tag = without_namespace(element.tag)
        element.attrib = {without_namespace(name): value for name, value in element.attrib.items()}
        if "style" in element.attrib:
            element.attrib["style"] = for_page(element.attrib["style"])
        name = element.get("id", "")
        if name not in used:
            element.attrib.pop("id", None)
        if name in hints:
            add_title(element, hints[name])
    add_title(root, title)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def without_namespace(name: str) -> str:
    """The name that an SVG element or attribute has within HTML."""
    return name.rpartition("}")[2]


def add_title(element: ElementTree.Element, text: str) -> None:
    """Adds SVG's `title` as the first child."""
    title = ElementTree.Element("title")
    title.text = text
    element.insert(0, title)


def for_page(style: str) -> str:
    """CSS of an SVG element without matplotlib's font, and with variables for colours."""
    style = re.sub(
        r"font: (?:(\d+|bold) )?([\d.]+)px [^;]*",
        lambda font: f"font-size: {font[2]}px" + (f"; font-weight: {font[1]}" if font[1] else ""),
        style,
    )
    for name, colour in NAMES.items():
        style = style.replace(colour, f"var(--{name})")
    return style


def as_png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
