"""Charts of a run and an evaluation: curves, confusion, log-odds, ROC, calibration, ages, and groups as a forest."""

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
from shard_tools.base.colours import ACCENTS, FAINT, INK, LINE, ONE
from shard_tools.base.figures import WIDTH, bare, chart_style, cut, new_figure, percent_axis
from shard_tools.base.text import percent

SCORE_BINS = 48
LONGEST = 20
"""Letters of a group's name beside a forest."""


def training_curves(records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Loss, accuracy, age error and learning rate by epoch, as far as a run's records have them."""
    found = {}
    with chart_style():
        for title, score, label in (
            ("loss", "loss", "loss"),
            ("accuracy", "accuracy", "accuracy"),
            ("age error", "age_mae", "mean absolute error, years"),
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
    """Epochs and scores of a split, where it was measured."""
    return [(record["epoch"], record[split][score]) for record in records if record[split].get(score) is not None]


def plot(axes: Axes, points: Sequence[tuple[int, float]], **look: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def finish(axes: Axes, across: str, up: str) -> None:
    """Labels the axes, whole numbers across, and adds a legend if there are several lines."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def confusion(gender: Gender) -> Figure:
    """Images by label (rows) and prediction (columns), shaded by their fraction of the label's."""
    names = [scores.name for scores in gender.classes]
    with chart_style():
        figure, axes = new_figure()
        for row, counts in enumerate(gender.confusion):
            for column, count in enumerate(counts):
                fraction = count / sum(counts) if sum(counts) else 0.0
                place = (column - 0.48, row - 0.46)
                axes.add_patch(
                    Rectangle(place, 0.96, 0.92, facecolor=ONE, alpha=0.06 + 0.44 * fraction, edgecolor="none")
                )
                axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=17)
                axes.text(column, row + 0.2, percent(fraction) if sum(counts) else "", ha="center", va="center")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        bare(axes)
    return figure


def roc(gender: Gender) -> Figure:
    """The ROC curve with the equal error rate; the diagonal is chance."""
    with chart_style():
        figure, axes = new_figure()
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.2)
        axes.plot(
            [point.false_positive for point in gender.roc], [point.true_positive for point in gender.roc], color=ONE
        )
        if equal := gender.equal_error:
            axes.plot([equal.rate], [1 - equal.rate], "o", color=INK, markersize=6)
            axes.annotate(
                f"equal error rate {percent(equal.rate)}",
                (equal.rate, 1 - equal.rate),
                xytext=(10, -16),
                textcoords="offset points",
            )
        axes.text(0.97, 0.05, f"area {gender.roc_auc.value:.4f}", ha="right", fontsize=13)
        axes.set_xlabel("false positive rate: women predicted male")
        axes.set_ylabel("true positive rate: men predicted male")
        percent_axis(axes, "x")
        percent_axis(axes, "y")
    return figure


def reliability(gender: Gender) -> Figure:
    """The reliability diagram: calibrated probabilities lie on the diagonal. Bars: fraction of images in each bin."""
    total = gender.images
    with chart_style():
        figure, axes = new_figure()
        for one in gender.calibration.bins:
            if one.images:
                axes.bar(one.low, one.images / total, one.high - one.low, align="edge", color=LINE, edgecolor="none")
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.2)
        draw_bins(axes, gender.calibration.bins, color=ONE, marker="o", label="as predicted")
        if gender.temperature:
            name = f"temperature {gender.temperature.value:.2f}"
            bins = gender.temperature.calibration.bins
            draw_bins(axes, bins, color=ACCENTS[0], marker="s", linestyle="--", label=name)
            axes.legend(loc="upper left")
        axes.set_xlabel("predicted probability of male")
        axes.set_ylabel("fraction male; bars: of all images")
        percent_axis(axes, "y")
    return figure


def draw_bins(axes: Axes, bins: Sequence[Bin], **look: Any) -> None:
    known = [one for one in bins if one.images]
    axes.plot([one.probability for one in known], [one.male for one in known], markersize=4.5, **look)


def score_distributions(predictions: Predictions, gender: Gender) -> Figure:
    """Histograms of log-odds by class; d-prime is the distance between them."""
    known = predictions.gender_known
    log_odds, label = predictions.logit[known].astype(np.float64), predictions.label[known]
    low, high = np.quantile(log_odds, (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1, SCORE_BINS)
    with chart_style():
        figure, axes = new_figure()
        for code, scores in enumerate(gender.classes):
            chosen = np.clip(log_odds[label == code], edges[0], edges[-1])
            if len(chosen):
                heights, _ = np.histogram(chosen, edges)
                axes.stairs(heights / len(chosen), edges, fill=True, color=ACCENTS[code], alpha=0.28)
                axes.stairs(heights / len(chosen), edges, color=ACCENTS[code], linewidth=1.6, label=scores.name)
        axes.axvline(0, color=FAINT, linestyle=":", linewidth=1.2)
        axes.set_xlabel("log-odds of male")
        axes.set_ylabel("fraction of the class")
        percent_axis(axes, "y")
        axes.legend()
    return figure


def cumulative_ages(age: Age) -> Figure:
    """Cumulative score: the fraction of images whose age error is at most so many years."""
    with chart_style():
        figure, axes = new_figure()
        axes.plot(range(len(age.cumulative)), age.cumulative, color=ONE, marker="o", markersize=3.5)
        axes.set_ylim(0, 1.02)
        finish(axes, "absolute age error up to, years", "fraction of images")
        percent_axis(axes, "y")
    return figure


def forest(table: GroupTable, overall: float) -> Figure:
    """The score of each group with its interval, and of all images as a line; small groups are hollow."""
    by_accuracy = table.measure == "accuracy"
    with chart_style():
        figure, axes = new_figure(WIDTH, max(80 + 24 * len(table.groups), 130))
        axes.axvline(overall, color=FAINT, linestyle=":", linewidth=1.2)
        for place, group in enumerate(table.groups):
            score, colour = group.score, FAINT if group.small else ONE
            ends = None if math.isnan(score.low) else [[score.value - score.low], [score.high - score.value]]
            face = "none" if group.small else colour
            axes.errorbar([score.value], [place], xerr=ends, fmt="o", color=colour, markerfacecolor=face, capsize=3)
        axes.set_yticks(range(len(table.groups)), [cut(group.value, LONGEST) for group in table.groups])
        axes.set_ylim(len(table.groups) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy" if by_accuracy else "mean absolute age error, years")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if by_accuracy:
            percent_axis(axes, "x")
    return figure
