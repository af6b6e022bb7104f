"""What a run and an evaluation look like: curves, confusion, scores, ROC, calibration, ages, and groups as a forest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hpcgender.evaluate.predictions import Predictions
from hpcgender.evaluate.results import Age, Bin, Gender, GroupTable
from hpcgender.report.figures import FAINT, INK, LINE, ONE, WIDTH, drawn_as_here, new_figure, percent_axis
from hpcgender.report.words import percent
from shard_tools.base.page import ACCENTS

SCORE_BINS = 48
LONGEST = 20
"""Letters of a group's name beside a forest."""


def training_curves(records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Loss, accuracy, error of age and learning rate by epoch, of a run's records; what it does not measure is not."""
    found = {}
    with drawn_as_here():
        for title, score, label in (
            ("loss", "loss", "loss"),
            ("accuracy", "accuracy", "accuracy"),
            ("error of the age", "age_mae", "mean absolute error, years"),
        ):
            lines = {split: curve(records, split, score) for split in ("train", "val")}
            if not any(lines.values()):
                continue
            figure, axes = new_figure()
            plot(axes, lines["train"], color=FAINT, linestyle="--", label="training")
            plot(axes, lines["val"], color=ONE, marker="o", markersize=3.5, label="validation")
            if score == "accuracy":
                for code, name in enumerate(("female", "male")):
                    points = [
                        (record["epoch"], record["val"]["class_accuracy"][name])
                        for record in records
                        if name in record["val"]["class_accuracy"]
                    ]
                    plot(axes, points, color=ACCENTS[code], linewidth=1.1, label=f"validation, {name}")
                percent_axis(axes, "y")
            finish(axes, "epoch", label)
            found[f"{title} by epoch"] = figure
        figure, axes = new_figure()
        plot(axes, [(record["epoch"], record["lr"]) for record in records], color=ONE, marker="o", markersize=3.5)
        finish(axes, "epoch", "largest learning rate")
        found["learning rate by epoch"] = figure
    return found


def curve(records: Sequence[Mapping[str, Any]], split: str, score: str) -> list[tuple[int, float]]:
    """A score of a split by epoch, where it is measured."""
    return [(record["epoch"], record[split][score]) for record in records if record[split].get(score) is not None]


def plot(axes: Axes, points: Sequence[tuple[int, float]], **look: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def finish(axes: Axes, across: str, up: str) -> None:
    """Labels the axes, whole numbers across, and shows the legend if there is anything to tell apart."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def confusion(gender: Gender) -> Figure:
    """Images by label (rows) and prediction (columns), shaded by their part of the label's."""
    names = [scores.name for scores in gender.classes]
    with drawn_as_here():
        figure, axes = new_figure()
        for row, counts in enumerate(gender.confusion):
            for column, count in enumerate(counts):
                part = count / sum(counts) if sum(counts) else 0.0
                place = (column - 0.48, row - 0.46)
                axes.add_patch(Rectangle(place, 0.96, 0.92, facecolor=ONE, alpha=0.06 + 0.44 * part, edgecolor="none"))
                axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=17)
                axes.text(column, row + 0.2, percent(part) if sum(counts) else "", ha="center", va="center")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        bare(axes)
    return figure


def bare(axes: Axes) -> None:
    """Takes away grid, frame and ticks."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def roc(gender: Gender) -> Figure:
    """The ROC curve with the point of equal errors; the diagonal is chance."""
    with drawn_as_here():
        figure, axes = new_figure()
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.2)
        axes.plot(
            [point.false_positive for point in gender.roc], [point.true_positive for point in gender.roc], color=ONE
        )
        if equal := gender.equal_error:
            axes.plot([equal.rate], [1 - equal.rate], "o", color=INK, markersize=6)
            axes.annotate(
                f"equal errors {percent(equal.rate)}",
                (equal.rate, 1 - equal.rate),
                xytext=(10, -16),
                textcoords="offset points",
            )
        axes.text(0.97, 0.05, f"area {gender.roc_auc.value:.4f}", ha="right", fontsize=13)
        axes.set_xlabel("women called male")
        axes.set_ylabel("men called male")
        percent_axis(axes, "x")
        percent_axis(axes, "y")
    return figure


def reliability(gender: Gender) -> Figure:
    """How many are male of those with a probability: on the diagonal it is true. Bars: where the images are."""
    total = gender.images
    with drawn_as_here():
        figure, axes = new_figure()
        for one in gender.calibration.bins:
            if one.images:
                axes.bar(one.low, one.images / total, one.high - one.low, align="edge", color=LINE, edgecolor="none")
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.2)
        draw_bins(axes, gender.calibration.bins, color=ONE, marker="o", label="as it is")
        if gender.temperature:
            name = f"temperature {gender.temperature.value:.2f}"
            bins = gender.temperature.calibration.bins
            draw_bins(axes, bins, color=ACCENTS[0], marker="s", linestyle="--", label=name)
            axes.legend(loc="upper left")
        axes.set_xlabel("probability of male")
        axes.set_ylabel("of them male; bars: of all images")
        percent_axis(axes, "y")
    return figure


def draw_bins(axes: Axes, bins: Sequence[Bin], **look: Any) -> None:
    known = [one for one in bins if one.images]
    axes.plot([one.probability for one in known], [one.male for one in known], markersize=4.5, **look)


def score_distributions(predictions: Predictions, gender: Gender) -> Figure:
    """Log-odds of male, of women and men: how far apart they are is d-prime."""
    known = predictions.gender_known
    logit, label = predictions.logit[known].astype(np.float64), predictions.label[known]
    low, high = np.quantile(logit, (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1, SCORE_BINS)
    with drawn_as_here():
        figure, axes = new_figure()
        for code, scores in enumerate(gender.classes):
            chosen = np.clip(logit[label == code], edges[0], edges[-1])
            if len(chosen):
                heights, _ = np.histogram(chosen, edges)
                axes.stairs(heights / len(chosen), edges, fill=True, color=ACCENTS[code], alpha=0.28)
                axes.stairs(heights / len(chosen), edges, color=ACCENTS[code], linewidth=1.6, label=scores.name)
        axes.axvline(0, color=FAINT, linestyle=":", linewidth=1.2)
        axes.set_xlabel("log-odds of male")
        axes.set_ylabel("part of the class")
        percent_axis(axes, "y")
        axes.legend()
    return figure


def cumulative_ages(age: Age) -> Figure:
    """The part of the images whose age is told to within so many years."""
    with drawn_as_here():
        figure, axes = new_figure()
        axes.plot(range(len(age.cumulative)), age.cumulative, color=ONE, marker="o", markersize=3.5)
        axes.set_ylim(0, 1.02)
        finish(axes, "error of at most so many years", "images")
        percent_axis(axes, "y")
    return figure


def forest(table: GroupTable, overall: float) -> Figure:
    """The score of each group with its interval, and of all as a line; what rests on few images is drawn hollow."""
    of_one = table.measure == "accuracy"
    with drawn_as_here():
        figure, axes = new_figure(WIDTH, max(80 + 24 * len(table.groups), 130))
        axes.axvline(overall, color=FAINT, linestyle=":", linewidth=1.2)
        for place, group in enumerate(table.groups):
            score, colour = group.score, FAINT if group.small else ONE
            ends = None if math.isnan(score.low) else [[score.value - score.low], [score.high - score.value]]
            face = "none" if group.small else colour
            axes.errorbar([score.value], [place], xerr=ends, fmt="o", color=colour, markerfacecolor=face, capsize=3)
        axes.set_yticks(range(len(table.groups)), [cut(group.value) for group in table.groups])
        axes.set_ylim(len(table.groups) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy" if of_one else "mean absolute error of the age, years")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if of_one:
            percent_axis(axes, "x")
    return figure


def cut(name: str, room: int = LONGEST) -> str:
    """A name that is too long for an axis, cut."""
    return name if len(name) <= room else f"{name[: room - 1]}\N{HORIZONTAL ELLIPSIS}"
