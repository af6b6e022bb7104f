"""The file with the result of a study, and what it says of how many runs were looked at before one was reported."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcgender.run_directory import STUDY_TOML
from shard_tools.base.documents import read_document, restored_part
from shard_tools.base.text import plural

RESULT = "result.json"
FORM = "hpcgender-study-result-1"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run of the study, and what was measured of it; None is unknown."""

    name: str
    finished: bool
    stopped_early: bool
    epochs: int
    """Epochs that are trained."""
    score: float | None
    """What trials are chosen by: that of the epoch whose weights are kept; see `hpcgender.study.metrics.score_of`."""
    val_accuracy: float | None
    val_age_mae: float | None
    """Of that epoch, years."""
    evaluations: dict[str, float]
    """Accuracy, or without gender minus the MAE of age, by the evaluation's name."""

    @property
    def rank(self) -> float:
        """The score, or less than any."""
        return -math.inf if self.score is None else self.score


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the file has of every study."""

    study: str
    best: str
    """The trial that is best by validation alone."""
    looked_at: int
    """Trials that are finished, or were stopped early."""
    trials: tuple[Trial, ...]


def looked_at(runs: Iterable[Path]) -> dict[str, str]:
    """For each study that runs, by their directories, are of: `study NAME`, and what was looked at, in words.

    Raises UserError if the file with the result of one cannot be read.
    """
    studies = dict.fromkeys(run.resolve().parent for run in runs)
    return {f"study {path.name}": _words(path) for path in studies if (path / STUDY_TOML).is_file()}


def _words(study: Path) -> str:
    path, again = study / RESULT, f"hpcgender study result {study.name} writes it again"
    if not path.is_file():
        return f"no result yet: hpcgender study result {study.name} counts the runs that were looked at"
    found = restored_part(Found, read_document(path, FORM, again, again), path, again)
    early = sum(trial.stopped_early for trial in found.trials)
    parts = [
        f"{plural(found.looked_at, 'run')} looked at{f', {early} of them stopped early' if early else ''}",
        f"best by validation alone: {found.best}",
    ]
    for name in dict.fromkeys(name for trial in found.trials for name in trial.evaluations):
        count = sum(name in trial.evaluations for trial in found.trials)
        parts.append(f"{name} was measured for {count} of {plural(len(found.trials), 'run')}, and chose none")
    return "; ".join(parts)
