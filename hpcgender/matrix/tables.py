"""A matrix as tables, as a heat map, as JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpcgender.matrix.cells import Cell, Matrix
from hpcgender.report.words import difference, interval
from shard_tools.base.colours import CARD
from shard_tools.base.documents import without_nan
from shard_tools.base.figures import bare, chart_style, charts, cut, new_figure
from shard_tools.base.text import NOTHING, Table, percent

TRAINED, UNKNOWN, CHOSE, UNCALIBRATED, UNFITTED = "*", "?", "!", "~", "#"
"""Marks of a cell: images of the set were trained on; that is not known; the best epoch was chosen on it; threshold and
temperature are not known; no temperature fits."""
ROW, COLUMN, EDGE = 46, 112, 150
"""Of the heat map, points: the height of a row, the width of a column, and the room for names."""
LETTERS = 18


def accuracy(cell: Cell) -> str:
    return f"{percent(cell.accuracy.value)} ({interval(cell.accuracy)})"


def balanced_accuracy(cell: Cell) -> str:
    return f"{percent(cell.balanced_accuracy.value)} ({interval(cell.balanced_accuracy)})"


def largest_gap(cell: Cell) -> str:
    return f"{cell.gap.worst} {difference(cell.gap.score, ends=False)}" if cell.gap else NOTHING


def calibration_error(cell: Cell) -> str:
    error = cell.calibration_error
    return f"{percent(error.value)} ({interval(error)}){UNFITTED if unfitted(cell) else ''}"


def unfitted(cell: Cell) -> bool:
    """Whether the threshold of validation is known, and no temperature."""
    return cell.validated and not cell.calibrated


def section(matrix: Matrix) -> dict[str, object]:
    """The content of the report's matrix.html."""
    return {"tables": tables(matrix), "notes": notes(matrix), "charts": charts({"accuracy": heat_map(matrix)})}


def tables(matrix: Matrix) -> list[Table]:
    """A table for each score: models by test sets."""
    return [
        table(matrix, "accuracy, % (95 %)", accuracy),
        table(matrix, "balanced accuracy, % (95 %)", balanced_accuracy),
        table(matrix, "worst group, and points that it is below the best", largest_gap),
        table(matrix, "calibration error, % (95 %)", calibration_error),
    ]


def table(matrix: Matrix, title: str, text: Callable[[Cell], str]) -> Table:
    rows = []
    for model in matrix.models:
        cells = [matrix.cell(model, test_set.name) for test_set in matrix.test_sets]
        rows.append((model, *(f"{text(cell)}{marks(cell)}" if cell else NOTHING for cell in cells)))
    return Table(("model", *(test_set.name for test_set in matrix.test_sets)), tuple(rows), title, fold_name=True)


def marks(cell: Cell) -> str:
    """The marks of a cell."""
    trained = UNKNOWN if cell.trained_on is None else TRAINED if cell.trained_on else ""
    return trained + (CHOSE if cell.chose_epoch else "") + ("" if cell.validated else UNCALIBRATED)


def notes(matrix: Matrix) -> list[str]:
    """What the marks mean, of those that there are, and how several seeds are shown."""
    found = [
        "Threshold and temperature are those of each model's evaluation on what it was validated on, such as val; of a "
        "mixture those on all of its data sets that were evaluated."
    ]
    used = {mark for cell in matrix.cells for mark in marks(cell)}
    if UNCALIBRATED in used:
        found.append(
            f"{UNCALIBRATED} The model has none: its threshold is 0.5, and its probabilities are as they are "
            "(hpcgender evaluate --split val)."
        )
    if any(map(unfitted, matrix.cells)):
        found.append(
            f"{UNFITTED} No temperature fits, as where all images of validation are classified correctly: "
            "probabilities are as they are."
        )
    if TRAINED in used:
        found.append(f"{TRAINED} Images of this set lie in the model's training split, which flatters.")
    if UNKNOWN in used:
        found.append(f"{UNKNOWN} Whether images of this set were trained on could not be checked.")
    if CHOSE in used:
        found.append(f"{CHOSE} The best epoch was chosen on this set, which flatters the model.")
    if any(cell.runs > 1 for cell in matrix.cells):
        found.append("Of several seeds: the mean, with intervals that count seeds and images.")
    return found


def heat_map(matrix: Matrix) -> Figure:
    """Accuracy of all cells; empty where a model was not evaluated."""
    values = [
        [cell.accuracy.value if (cell := matrix.cell(model, one.name)) else math.nan for one in matrix.test_sets]
        for model in matrix.models
    ]
    with chart_style():
        figure, axes = new_figure(EDGE + COLUMN * len(matrix.test_sets), EDGE / 2 + ROW * len(matrix.models))
        image = axes.pcolormesh(np.ma.masked_invalid(values), cmap="viridis", edgecolors=CARD, linewidth=2)
        axes.invert_yaxis()
        low, high = image.get_clim()
        for row, of_model in enumerate(values):
            for column, value in enumerate(of_model):
                if not math.isnan(value):
                    cell = matrix.cell(matrix.models[row], matrix.test_sets[column].name)
                    light = high > low and (value - low) / (high - low) > 0.6
                    axes.text(
                        *(column + 0.5, row + 0.5, f"{percent(value)}{marks(cell) if cell else ''}"),
                        ha="center",
                        va="center",
                        color="black" if light else "white",
                    )
        axes.set_xticks(np.arange(len(matrix.test_sets)) + 0.5, [cut(one.name, LETTERS) for one in matrix.test_sets])
        axes.set_yticks(np.arange(len(matrix.models)) + 0.5, [cut(model, LETTERS) for model in matrix.models])
        bare(axes)
    return figure


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The content of --json; unknown numbers are null."""
    return {
        "models": list(matrix.models),
        "test_sets": [asdict(test_set) for test_set in matrix.test_sets],
        "cells": [without_nan(asdict(cell)) for cell in matrix.cells],
    }


def as_csv(matrix: Matrix) -> str:
    """A line for each cell below the names of the columns; unknown numbers are empty."""
    text = io.StringIO()
    rows = [row(cell) for cell in matrix.cells]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def row(cell: Cell) -> dict[str, Any]:
    """A cell as a row of plain values."""
    gap = cell.gap
    found: dict[str, Any] = without_nan(
        {
            "model": cell.model,
            "test_set": cell.test_set,
            "runs": cell.runs,
            "images": cell.images,
            "accuracy": cell.accuracy.value,
            "accuracy_low": cell.accuracy.low,
            "accuracy_high": cell.accuracy.high,
            "balanced_accuracy": cell.balanced_accuracy.value,
            "balanced_accuracy_low": cell.balanced_accuracy.low,
            "balanced_accuracy_high": cell.balanced_accuracy.high,
            "worst_group": gap.worst if gap else "",
            "best_group": gap.best if gap else "",
            "gap": gap.score.value if gap else math.nan,
            "gap_low": gap.score.low if gap else math.nan,
            "gap_high": gap.score.high if gap else math.nan,
            "calibration_error": cell.calibration_error.value,
            "calibration_error_low": cell.calibration_error.low,
            "calibration_error_high": cell.calibration_error.high,
            "validated": cell.validated,
            "calibrated": cell.calibrated,
            "trained_on": cell.trained_on,
            "chose_epoch": cell.chose_epoch,
        }
    )
    return found
