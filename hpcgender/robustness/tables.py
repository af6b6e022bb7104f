"""The scores of corrupted images as tables and sentences, for the log and for reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcgender.evaluate.results import Gap, GroupTable, Measure, Score
from hpcgender.report.words import difference, interval, number
from hpcgender.robustness.corruptions import SEVERITIES
from hpcgender.robustness.results import Robustness, Scores
from shard_tools.base.text import NOTHING, Table, text_of


@dataclass(frozen=True)
class Shown:
    """How the scores of a task are shown."""

    title: str
    measure: Measure
    change: str
    """Name of the column with the difference."""
    value: Callable[[Scores], float]
    """In per cent, or years."""
    lost: Callable[[Scores], Score | None]

    @property
    def by_accuracy(self) -> bool:
        return self.measure == "accuracy_lost"


TASKS = (
    Shown(
        "accuracy of corrupted images, %, by severity",
        "accuracy_lost",
        "lost, points (95 %)",
        lambda scores: 100 * scores.accuracy,
        lambda scores: scores.accuracy_lost,
    ),
    Shown(
        "age MAE of corrupted images, years, by severity",
        "age_mae_added",
        "added, years (95 %)",
        lambda scores: scores.age_mae,
        lambda scores: scores.age_mae_added,
    ),
)


def robustness_lines(found: Robustness) -> list[str]:
    """The lines of a log."""
    return [*text_of(score_tables(found)).split("\n"), *losing_most(found), *harmed_first(found)]


def score_tables(found: Robustness) -> list[Table]:
    """A table for each task that the model has."""
    return [score_table(found, task) for task in TASKS if not math.isnan(task.value(found.clean))]


def score_table(found: Robustness, task: Shown) -> Table:
    """A row for each corruption: the score with each severity, what the mean of them lost, and who lost most."""
    grid = np.array([[task.value(one.scores) for one in corruption.severities] for corruption in found.corruptions])
    nothing = [math.nan] * len(SEVERITIES)
    rows = [cells("none", nothing, found.clean, (), task)]
    for corruption, values in zip(found.corruptions, grid.tolist(), strict=True):
        rows.append(cells(corruption.name, values, corruption.scores, corruption.tables, task))
    rows.append(cells("mean", grid.mean(0).tolist(), found.scores, found.tables, task))
    calibrated = ["ECE, %"] if task.by_accuracy else []
    columns = ("corruption", *map(str, SEVERITIES), "mean", task.change, *calibrated, "loses most")
    return Table(columns, tuple(rows), task.title, left=frozenset({"loses most"}))


def cells(
    name: str, values: Sequence[float], scores: Scores, tables: Sequence[GroupTable], task: Shown
) -> tuple[str, ...]:
    """A row of it."""
    lost = task.lost(scores)
    return (
        name,
        *(number(value, 1 if task.by_accuracy else 2) for value in (*values, task.value(scores))),
        difference(lost, fraction=task.by_accuracy) if lost else NOTHING,
        *([number(100 * scores.calibration_error, 1)] if task.by_accuracy else []),
        loses_most(tables, task.measure) or NOTHING,
    )


def loses_most(tables: Sequence[GroupTable], measure: Measure) -> str:
    """The group that lost most, with its column, where it lost more than by chance, and more than another group.

    Empty if none did. Intervals of gaps hold for all columns and corruptions at once: in 95 of 100 cases no group is
    named without a real difference.
    """
    found = [
        (table.gap.score.value, table.column, table.gap.worst)
        for table in tables
        if table.measure == measure and table.gap and harmed(table, table.gap)
    ]
    _, column, group = max(found, default=(0.0, "", ""))
    return f"{group} ({column})" if group else ""


def harmed(table: GroupTable, gap: Gap) -> bool:
    """Whether the worst group of a gap lost more than by chance, and more than the best one."""
    return gap.excludes_zero and loss_of(table, gap.worst).low > 0


def loss_of(table: GroupTable, value: str) -> Score:
    """What a group lost."""
    return next(group.score for group in table.groups if group.value == value)


def losing_most(found: Robustness) -> Iterator[str]:
    """A sentence for each column of groups and each task: who loses most over all corruptions."""
    for table in found.tables:
        if gap := table.gap:
            worst, more = loss_of(table, gap.worst), gap.score
            if table.measure == "accuracy_lost":
                what, lost = "accuracy", f"{100 * worst.value:.1f} points"
                by = f"{100 * more.value:.1f} (95 %: {interval(more)})"
            else:
                what, lost = "age MAE", f"{worst.value:.2f} years"
                by = f"{more.value:.2f} (95 %: {interval(more, 2, fraction=False)})"
            how = "more than chance" if harmed(table, gap) else "which may be chance"
            yield f"{what} by {table.column}: {gap.worst} loses most, {lost}, {by} more than {gap.best}: {how}"


def harmed_first(found: Robustness) -> Iterator[str]:
    """A sentence for each corruption and each task: with which severity a group first loses more than by chance."""
    for corruption in found.corruptions:
        for first in corruption.first:
            if first.measure == "accuracy_lost":
                what, lost = "accuracy", f"{100 * first.lost.value:.1f} points (95 %: {interval(first.lost)})"
            else:
                lost = f"{first.lost.value:.2f} years (95 %: {interval(first.lost, 2, fraction=False)})"
                what = "age MAE"
            who = f"{first.value} ({first.column})"
            yield f"{what} with {corruption.name}: {who} loses first, with severity {first.severity}: {lost}"
