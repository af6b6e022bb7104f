"""Models on the same corrupted images: mean corruption error, and paired differences to the first model.

For `evaluate --corrupt` of all models, over the corruptions that all have, and the images of known gender.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcgender.compare.seeds import EvaluatedRun
from hpcgender.evaluate.predictions import Floats, Labels
from hpcgender.evaluate.resample import clusters_of, drawn_score, mean_differences, parts, resampled_sums
from hpcgender.evaluate.results import Score
from hpcgender.report.words import difference, interval
from hpcgender.robustness.corrupted import read_corrupted
from hpcgender.robustness.results import Robustness, find_robustness
from shard_tools.base.text import Table, percent


@dataclass(frozen=True, kw_only=True)
class RobustRun:
    """A model on corrupted images. Accuracies are means over the severities; differences are this minus the first."""

    name: str
    clean: float
    """Accuracy on the images as they are."""
    accuracy: float
    """Mean over the corruptions."""
    lost: Score
    """Accuracy on the clean images minus that."""
    by_corruption: dict[str, float]
    """Accuracy."""
    mean_corruption_error: Score
    """Mean over corruptions of the error divided by the first model's (Hendrycks & Dietterich, ICLR 2019); nan where
    that makes none."""
    more: Score
    """Difference of accuracies on corrupted images."""
    more_by_corruption: dict[str, Score]
    more_lost: Score
    """Difference of what is lost."""


def robust_runs(runs: Sequence[EvaluatedRun]) -> tuple[RobustRun, ...]:
    """The models, in their order; none unless all predict gender and have corruptions in common.

    They have predictions of the same images in the same order.
    """
    found: list[Robustness] = [one for run in runs if (one := find_robustness(run.directory))]
    if len(found) < len(runs) or not all(run.results.gender for run in runs):
        return ()
    names = tuple(name for name in found[0].names if all(name in one.names for one in found))
    if not names:
        return ()
    known = np.all([run.predictions.gender_known for run in runs], axis=0)
    clusters = clusters_of(runs[0].predictions.subject[known])
    wrong = [wrong_of(run, names)[known] for run in runs]
    return tuple(robust_run(run.name, names, one, wrong[0], clusters) for run, one in zip(runs, wrong, strict=True))


def wrong_of(run: EvaluatedRun, names: tuple[str, ...]) -> Floats:
    """How wrong a model is about each image, (n, 1 + corruptions): 0 or 1 as it is, then means over severities."""
    predictions, corrupted = run.predictions, read_corrupted(run.directory, names)
    male = predictions.label == 1
    columns = [((corrupted[name].logit > 0) != male[:, None]).mean(1) for name in names]
    return np.column_stack([(predictions.logit > 0) != male, *columns]).astype(np.float64)


def robust_run(name: str, names: tuple[str, ...], wrong: Floats, first: Floats, clusters: Labels) -> RobustRun:
    """The numbers of a model, by how wrong it and the first one are (n, 1 + corruptions)."""
    lost, first_lost = (one[:, 1:].mean(1) - one[:, 0] for one in (wrong, first))
    gains = first[:, 1:] - wrong[:, 1:]
    of_lost, more_lost, more, *by_corruption = mean_differences(
        np.column_stack([lost, lost - first_lost, gains.mean(1), gains]), clusters
    )
    means = 1 - wrong.mean(0)
    return RobustRun(
        name=name,
        clean=float(means[0]),
        accuracy=float(means[1:].mean()),
        lost=of_lost,
        by_corruption=dict(zip(names, means[1:].tolist(), strict=True)),
        mean_corruption_error=corruption_error(wrong[:, 1:], first[:, 1:], clusters),
        more=more,
        more_by_corruption=dict(zip(names, by_corruption, strict=True)),
        more_lost=more_lost,
    )


def corruption_error(wrong: Floats, first: Floats, clusters: Labels) -> Score:
    """The mean over corruptions of the quotients of errors (n, corruptions)."""
    drawn, drawn_first = np.split(resampled_sums(np.column_stack([wrong, first]), clusters), 2, axis=1)
    value = float(parts(wrong.sum(0), first.sum(0)).mean())
    return drawn_score(value, parts(drawn, drawn_first).mean(1))


def robustness_tables(runs: Sequence[RobustRun]) -> dict[str, Table]:
    """The tables of robust models by topic; none without."""
    if not runs:
        return {}
    first, *others = runs
    columns = (
        "run",
        "as it is",
        "corrupted",
        "lost, points (95 %)",
        "mCE, % (95 %)",
        "minus first (95 %)",
        "lost more",
    )
    rows = [
        (
            run.name,
            percent(run.clean),
            percent(run.accuracy),
            difference(run.lost),
            f"{percent(run.mean_corruption_error.value)} ({interval(run.mean_corruption_error)})",
            difference(run.more),
            difference(run.more_lost),
        )
        for run in others
    ]
    nothing = ("100.0 %", "", "")
    rows.insert(0, (first.name, percent(first.clean), percent(first.accuracy), difference(first.lost), *nothing))
    between = [f"{run.name} - {first.name} (95 %)" for run in others] if len(others) == 1 else []
    by_corruption = [
        (
            name,
            *(percent(run.by_corruption[name]) for run in runs),
            *(difference(run.more_by_corruption[name]) for run in others[: len(between)]),
        )
        for name in first.by_corruption
    ]
    names = ("corruption", *(run.name for run in runs), *between)
    return {
        "robustness": Table(columns, tuple(rows), "accuracy of corrupted images", fold_name=True),
        "corruptions": Table(names, tuple(by_corruption), "accuracy by corruption, mean of the severities"),
    }


def robustness_verdicts(runs: Sequence[RobustRun]) -> Iterator[str]:
    """A sentence for each model but the first: whether it is more accurate on corrupted images."""
    for run in runs[1:]:
        better, worse = (run, runs[0]) if run.more.value > 0 else (runs[0], run)
        if run.more.low > 0 or run.more.high < 0:
            by = f"by {100 * abs(run.more.value):.2f} points: more than chance"
            yield f"On corrupted images {better.name} is more accurate than {worse.name}, {by}."
        else:
            yield f"Whether {runs[0].name} or {run.name} is more accurate on corrupted images cannot be told."
