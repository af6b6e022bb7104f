"""Charts of corrupted images: the score over severity, one for each corruption."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from hpcgender.evaluate.results import Score
from hpcgender.robustness.corruptions import SEVERITIES
from hpcgender.robustness.results import OfCorruption, Robustness
from shard_tools.base.colours import ACCENTS, FAINT, ONE
from shard_tools.base.figures import DPI, HEIGHT, WIDTH, chart_style, new_figure, percent_axis
from shard_tools.manifest import CLASSES

COLUMNS = 4
"""Charts beside each other in a picture."""


def picture(found: Robustness) -> Figure:
    """All charts beside each other, with one scale."""
    columns = min(COLUMNS, len(found.corruptions))
    lines = math.ceil(len(found.corruptions) / columns)
    with chart_style():
        figure = Figure(figsize=(0.8 * WIDTH * columns / DPI, 0.8 * HEIGHT * lines / DPI), dpi=DPI)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel().tolist()
        for axes, one in zip(grid, found.corruptions, strict=False):
            draw(axes, found, one)
            axes.set_title(one.name, loc="left")
        for axes in grid[len(found.corruptions) :]:
            axes.set_visible(False)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def chart(found: Robustness, one: OfCorruption) -> Figure:
    """The chart of a corruption as a figure of its own."""
    with chart_style():
        figure, axes = new_figure()
        draw(axes, found, one)
        axes.legend()
    return figure


def draw(axes: Axes, found: Robustness, one: OfCorruption) -> None:
    """Accuracy over severity, 0 being the clean images: all with intervals, women and men; of a model of age, years."""
    places = (0, *SEVERITIES)
    if math.isnan(found.clean.accuracy):
        years = [found.clean.age_mae, *(of.scores.age_mae for of in one.severities)]
        bars(axes, years, [of.scores.age_mae_added for of in one.severities], 1)
        axes.set_ylabel("age MAE, years")
    else:
        axes.axhline(found.clean.accuracy, color=FAINT, linestyle=":", linewidth=1.2)
        for code, name in enumerate(CLASSES):
            recalls = [of.recalls.get(name, math.nan) for of in (found.clean, *(of.scores for of in one.severities))]
            axes.plot(places, recalls, color=ACCENTS[code], linewidth=1.2, linestyle=("--", "-.")[code], label=name)
        accuracies = [found.clean.accuracy, *(of.scores.accuracy for of in one.severities)]
        bars(axes, accuracies, [of.scores.accuracy_lost for of in one.severities], -1)
        axes.set_ylabel("accuracy")
        percent_axis(axes, "y")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.set_xlabel(f"severity: {one.unit} {', '.join(f'{of.strength:.3g}' for of in one.severities)}", fontsize=9)


def bars(axes: Axes, values: Sequence[float], lost: Sequence[Score | None], sign: int) -> None:
    """A line over severities from 0 on; the intervals are those of the differences to its beginning.

    `sign`: -1 where a loss is subtracted from the value, 1 where it is added.
    """
    ends = [(0.0, 0.0)]
    for score in lost:
        if score is None or math.isnan(score.low):
            ends.append((0.0, 0.0))
        else:
            below, above = score.value - score.low, score.high - score.value
            ends.append((below, above) if sign > 0 else (above, below))
    errors = [[max(end, 0.0) for end in side] for side in zip(*ends, strict=True)]  # a percentile may be past the value
    axes.errorbar((0, *SEVERITIES), values, yerr=errors, color=ONE, marker="o", markersize=4, capsize=2, label="all")
