"""A finished evaluation as Python programs read it: its numbers and its predictions, by the readers of the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcgender.evaluate.predictions import Predictions, read_predictions
from hpcgender.evaluate.results import FILE, Evaluation, GroupTable, read_evaluation


@dataclass(frozen=True, kw_only=True)
class FinishedEvaluation:
    """The files of an evaluation."""

    directory: Path
    results: Evaluation
    """All scores with their intervals, and what was evaluated; proportions are fractions, ages years."""
    predictions: Predictions
    """Columns of arrays (n,), an image each, sorted by key: `vars(predictions)` has them by name."""

    @property
    def temperature(self) -> float | None:
        """What log-odds are divided by for calibrated probabilities; None if no temperature was fitted."""
        gender = self.results.gender
        return gender.temperature.value if gender and gender.temperature else None

    @property
    def groups(self) -> dict[str, GroupTable]:
        """Accuracy of gender by the values of each column, such as `gender x group`, with its largest gap."""
        return {table.column: table for table in self.results.tables if table.measure == "accuracy"}


def evaluation(path: str | Path) -> FinishedEvaluation:
    """The evaluation in a directory such as runs/mine/evaluations/morph-test.

    Raises UserError if there is none, if it is damaged, or if it is of another version.
    """
    path = Path(path)
    directory = path.parent if path.name == FILE else path
    return FinishedEvaluation(
        directory=directory, results=read_evaluation(directory), predictions=read_predictions(directory)
    )
