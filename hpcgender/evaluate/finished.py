"""A finished evaluation: its directory, its numbers and its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hpcgender.evaluate.predictions import Predictions, read_predictions
from hpcgender.evaluate.results import FILE, Evaluation, GroupTable, read_evaluation
from shard_tools.base.options import expand


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedEvaluation:
    """The files of an evaluation; each is a key of its own."""

    directory: Path
    results: Evaluation
    """All scores with their intervals, and what was evaluated; proportions are fractions, ages years."""

    @cached_property
    def predictions(self) -> Predictions:
        """Columns of arrays (n,), an image each, sorted by key: `vars(predictions)` has them by name.

        Read when they are first asked for; UserError if they are damaged.
        """
        return read_predictions(self.directory)

    @property
    def directory_name(self) -> str:
        """Such as morph-test."""
        return self.directory.resolve().name

    @property
    def title(self) -> str:
        """Data set and split, for people."""
        return f"{Path(self.results.data.path).name}, {self.results.data.split}"

    @property
    def temperature(self) -> float | None:
        """What log-odds are divided by for calibrated probabilities; None if no temperature was fitted."""
        gender = self.results.gender
        return gender.temperature.value if gender and gender.temperature else None

    @property
    def groups(self) -> dict[str, GroupTable]:
        """Accuracy of gender by the values of each column, such as `gender x group`, with its largest gap."""
        return {table.column: table for table in self.results.tables if table.measure == "accuracy"}


def read_whole(directory: Path, results: Evaluation) -> FinishedEvaluation:
    """An evaluation whose predictions are read now; UserError if they are damaged."""
    found = FinishedEvaluation(directory=directory, results=results)
    _ = found.predictions
    return found


def evaluation(path: str | Path) -> FinishedEvaluation:
    """For Python programs: the evaluation in a directory such as runs/mine/evaluations/morph-test.

    Raises UserError if there is none, if it is damaged, or if it is of another version.
    """
    named: Path = expand(Path(path))
    directory = named.parent if named.name == FILE else named
    return read_whole(directory, read_evaluation(directory))
