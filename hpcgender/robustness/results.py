"""The numbers of `evaluate --corrupt`, `robustness.json`: what each of them is, and how they are written and read.

It lies beside evaluation.json, whose images and options they are of, and is written before that. robustness.parquet has
the predictions, robustness.png accuracy over severity. All are the same to the last bit for any number of processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from hpcgender.evaluate.results import GroupTable, Measure, Score
from shard_tools.base.documents import read_document, restored, write_document

FORMAT = "hpcgender-robustness-1"
FILE = "robustness.json"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of corrupted images, and what they lost: the paired difference to the same images as they are.

    Intervals are the bootstrap's that draws subjects with their images. Without gender, or without ages, nan and None.
    """

    accuracy: float
    accuracy_lost: Score | None
    """Accuracy on the clean images minus this: above 0 where the corruption harms."""
    recalls: dict[str, float]
    """Accuracy on the women and on the men, as far as there are any."""
    calibration_error: float
    """Expected calibration error, as of evaluation.json; with the temperature, if one was fitted."""
    age_mae: float
    """Years."""
    age_mae_added: Score | None
    """Years, minus those on the clean images: above 0 where the corruption harms."""


@dataclass(frozen=True, kw_only=True)
class OfSeverity:
    """One severity of a corruption."""

    severity: int
    strength: float
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class FirstHarmed:
    """The lowest severity with which some group lost more than by chance, and the group that lost most with it."""

    column: str
    value: str
    """The group, of those of the column."""
    measure: Measure
    severity: int
    lost: Score
    """Its interval holds for all groups, columns, severities and corruptions at once."""


@dataclass(frozen=True, kw_only=True)
class OfCorruption:
    """One corruption."""

    name: str
    unit: str
    """Of strengths."""
    scores: Scores
    """Means over the severities."""
    severities: tuple[OfSeverity, ...]
    tables: tuple[GroupTable, ...]
    """What each group lost on the mean of the severities. Intervals of gaps hold for all pairs of groups, columns and
    corruptions at once, those of the mean included."""
    first: tuple[FirstHarmed, ...] = ()
    """Of accuracy and of age, where a group lost more than by chance."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """All numbers of an evaluation with --corrupt."""

    clean: Scores
    """Of the images as they are, which have lost nothing."""
    scores: Scores
    """Means over corruptions and severities."""
    tables: tuple[GroupTable, ...]
    """What each group lost on the mean of corruptions and severities."""
    corruptions: tuple[OfCorruption, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the corruptions."""
        return tuple(one.name for one in self.corruptions)

    def write(self, directory: Path) -> None:
        """Writes robustness.json, whole or not at all."""
        write_document(directory / FILE, FORMAT, asdict(self))


def find_robustness(directory: Path) -> Robustness | None:
    """The numbers beside an evaluation; None if it was made without --corrupt. UserError if they cannot be read."""
    path, again = directory / FILE, "remove the directory and evaluate again"
    if not path.exists():
        return None
    return restored(Robustness, read_document(path, FORMAT, "evaluate with --corrupt", again), path, again)
