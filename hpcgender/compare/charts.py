"""Charts of a comparison: accuracy against each cost, the differences, and the curves of training and validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpcgender.compare.contenders import Contender
from hpcgender.compare.paired import Pair
from hpcgender.compare.rows import Comparison, Row
from hpcgender.compare.seeds import GroupPair
from hpcgender.report.charts import curve
from shard_tools.base.colours import FAINT, ONE
from shard_tools.base.figures import DPI, HEIGHT, WIDTH, chart_style, cut, new_figure, percent_axis, series
from shard_tools.base.text import plural

WIDE = 8.0
"""Costs that differ by more than this factor have a logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """A cost that accuracy is drawn against."""

    title: str
    label: str
    value: Callable[[Row], float]


COSTS = (
    Axis("accuracy against parameters", "parameters, millions", lambda row: row.parameters / 1e6),
    Axis("accuracy against multiply-accumulates", "multiply-accumulates of an image, G", lambda row: row.macs / 1e9),
    Axis("accuracy against latency", "forward pass of one image, ms", lambda row: row.one_ms),
    Axis("accuracy against speed", "forward pass, images/s", lambda row: row.images_per_s),
    Axis("accuracy against memory", "activations of an image in training, MB", lambda row: row.activation_bytes / 1e6),
    Axis("accuracy against training time", "training, hours", lambda row: row.training_seconds / 3600),
)

Draw = Callable[[Axes], None]


def drawings(comparison: Comparison, contenders: Sequence[Contender]) -> dict[str, Draw]:
    """The charts that have data, by title: functions that draw into given axes."""
    found: dict[str, Draw] = {}
    rows = comparison.rows
    if any(not math.isnan(row.accuracy) for row in rows):
        for cost in COSTS:
            if any(not math.isnan(cost.value(row)) for row in rows):
                found[cost.title] = lambda axes, cost=cost: against(axes, rows, cost)  # type: ignore[misc]
    if any(pair.accuracy for pair in comparison.pairs):
        found["differences of accuracy"] = lambda axes: forest(axes, comparison.pairs)
    for name, label in (("accuracy", "accuracy"), ("loss", "loss"), ("age_mae", "age MAE, years")):
        records = [contender.run.records if contender.run else () for contender in contenders]
        curves = [(curve(of_run, "train", name), curve(of_run, "val", name)) for of_run in records]
        if any(len(points) > 1 for of_run in curves for points in of_run):
            title = f"{label.partition(',')[0]} by epoch: validation, and training thin"
            found[title] = lambda axes, curves=curves, label=label: curves_of_runs(axes, curves, label)  # type: ignore[misc]
    return found


def chart_of(draw: Draw) -> Figure:
    """A chart as a figure of its own."""
    with chart_style():
        figure, axes = new_figure()
        draw(axes)
    return figure


def picture(comparison: Comparison, contenders: Sequence[Contender]) -> Figure:
    """All charts beside each other, and the runs' names below."""
    draws = drawings(comparison, contenders)
    columns = min(3, len(draws))
    lines = math.ceil(len(draws) / columns)
    with chart_style():
        figure = Figure(figsize=(WIDTH * columns / DPI, (HEIGHT * lines + 70) / DPI), dpi=DPI)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        data = comparison.data
        figure.suptitle(f"{Path(data.path).name}, {data.split}, {plural(data.images, 'image')}", fontsize=13)
        for number, (title, draw) in enumerate(draws.items()):
            axes = figure.add_subplot(lines, columns, number + 1)
            draw(axes)
            axes.set_title(title, loc="left")
        lines_of_runs = [Line2D([], [], label=row.name, **series(place)) for place, row in enumerate(comparison.rows)]
        figure.legend(handles=lines_of_runs, loc="outside lower center", ncols=min(4, len(lines_of_runs)))
    return figure


def against(axes: Axes, rows: Sequence[Row], cost: Axis) -> None:
    """Accuracy with its interval against a cost; a mark for each run."""
    shown = [(place, row) for place, row in enumerate(rows) if not math.isnan(row.accuracy + cost.value(row))]
    values = [cost.value(row) for _, row in shown]
    for (place, row), value in zip(shown, values, strict=True):
        ends = [[row.accuracy - row.accuracy_low], [row.accuracy_high - row.accuracy]]
        known = not math.isnan(row.accuracy_low)
        axes.errorbar([value], [row.accuracy], yerr=ends if known else None, markersize=8, capsize=3, **series(place))
    if min(values) > 0 and max(values) / min(values) > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.12)
    else:
        axes.set_xlim(0, max(values) * 1.12 or 1)
        few = MaxNLocator(5, steps=[1, 2, 5, 10])  # more numbers, as 0.015, would run into each other
        axes.xaxis.set_major_locator(few)
    axes.set_xlabel(cost.label)
    axes.set_ylabel("accuracy")
    percent_axis(axes, "y")


def forest(axes: Axes, pairs: Sequence[Pair] | Sequence[GroupPair]) -> None:
    """The difference of each pair with its interval; where that is left or right of 0, the pair differs."""
    shown = [(pair, pair.accuracy) for pair in pairs if pair.accuracy]
    for place, (_, score) in enumerate(shown):
        ends = None if math.isnan(score.low) else [[score.value - score.low], [score.high - score.value]]
        axes.errorbar(
            [score.value * 100], [place], xerr=ends and [[100 * end[0]] for end in ends], color=ONE, fmt="o", capsize=3
        )
    axes.axvline(0, color=FAINT, linewidth=1.2)
    axes.set_yticks(
        range(len(shown)), [f"{cut(pair.first, 14)} \N{MINUS SIGN} {cut(pair.second, 14)}" for pair, _ in shown]
    )
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("difference of accuracy, points")
    axes.grid(visible=False, axis="y")


Points = Sequence[tuple[int, float]]


def curves_of_runs(axes: Axes, curves: Sequence[tuple[Points, Points]], label: str) -> None:
    """Two curves for each run, of training and of validation, the gap between them shaded, and its size at the end."""
    fraction = label == "accuracy"
    for place, (train, val) in enumerate(curves):
        look = series(place)
        if train:
            axes.plot(*zip(*train, strict=True), **{**look, "marker": "", "linewidth": 0.9})
        if val:
            axes.plot(*zip(*val, strict=True), markersize=4, **look)
        validated = dict(val)
        both = [(epoch, value, validated[epoch]) for epoch, value in train if epoch in validated]
        if both:
            epochs, upper, lower = zip(*both, strict=True)
            axes.fill_between(epochs, upper, lower, color=look["color"], alpha=0.1, linewidth=0)
            gap = upper[-1] - lower[-1]
            shown = f"{100 * gap:+.1f}" if fraction else f"{gap:+.2f}"
            where = (epochs[-1], (upper[-1] + lower[-1]) / 2)
            axes.annotate(shown, where, (5, 0), textcoords="offset points", va="center", color=look["color"])
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if fraction:
        percent_axis(axes, "y")
