"""The scores of corrupted images, and what each group of people lost by the corruption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from hpcgender.evaluate.calibration import calibration
from hpcgender.evaluate.groups import columns_of, joint_group_tables
from hpcgender.evaluate.predictions import Floats, Predictions
from hpcgender.evaluate.resample import clusters_of, mean_difference, mean_differences
from hpcgender.evaluate.results import GroupTable, Measure, Score
from hpcgender.robustness.corrupted import Corrupted
from hpcgender.robustness.corruptions import CORRUPTIONS, SEVERITIES
from hpcgender.robustness.first import first_harmed
from hpcgender.robustness.results import OfCorruption, OfSeverity, Robustness, Scores
from shard_tools.manifest import CLASSES


class Task:
    """What images of known gender, or of known age, lose: 1 where they became wrong, -1 where right, or years."""

    def __init__(self, predictions: Predictions, measure: Measure) -> None:
        self.measure = measure
        self.known = predictions.gender_known if measure == "accuracy_lost" else predictions.age_known
        self.images = predictions.rows(self.known)
        self.columns = columns_of(self.images)
        self.clusters = clusters_of(self.images.subject)
        self.clean = self.penalty(self.images.logit if measure == "accuracy_lost" else self.images.age_prediction)
        """(n,)"""

    def penalty(self, outputs: npt.NDArray[np.float32]) -> Floats:
        """1 where an image is wrong, or years of error, of log-odds or ages (n,) or (n, 5)."""
        label, age = self.images.label, self.images.age
        if outputs.ndim > 1:
            label, age = label[:, None], age[:, None]
        wrong = (outputs > 0) != (label == 1)
        return wrong.astype(np.float64) if self.measure == "accuracy_lost" else np.abs(outputs.astype(np.float64) - age)

    def lost(self, corrupted: Corrupted) -> Floats:
        """(n, 5)"""
        one = corrupted.rows(self.known)
        return self.penalty(one.logit if self.measure == "accuracy_lost" else one.age) - self.clean[:, None]

    def tables(self, lost: Floats) -> tuple[tuple[GroupTable, ...], ...]:
        """By each column, of each column of losses (n, k); intervals of gaps hold for all of these at once."""
        return joint_group_tables(self.images, self.columns, lost, self.measure)


Losses = Mapping[Measure, Floats]
"""Of each task's images: (n,), or (n, 5) by severity."""


def robustness(
    predictions: Predictions, corrupted: Mapping[str, Corrupted], temperature: float | None = None
) -> Robustness:
    """All numbers, of predictions sorted by key; log-odds are calibrated by a temperature, if one is given."""
    measures: tuple[Measure, ...] = ("accuracy_lost", "age_mae_added")
    tasks = [task for task in (Task(predictions, measure) for measure in measures) if len(task.images)]
    nothing = {task.measure: np.zeros(len(task.images)) for task in tasks}
    lost = {name: {task.measure: task.lost(one) for task in tasks} for name, one in corrupted.items()}
    means = {
        task.measure: np.column_stack([losses[task.measure].mean(1) for losses in lost.values()]) for task in tasks
    }
    total = {measure: of_corruptions.mean(1) for measure, of_corruptions in means.items()}
    of_tasks = [task.tables(np.column_stack([means[task.measure], total[task.measure]])) for task in tasks]
    *tables, of_mean = [tuple(chain.from_iterable(several)) for several in zip(*of_tasks, strict=True)]
    first = [
        first_harmed(task.columns, task.clusters, {name: of[task.measure] for name, of in lost.items()}, task.measure)
        for task in tasks
    ]
    found = [
        replace(
            of_corruption(name, tasks, lost[name], one, tables[place], temperature),
            first=tuple(of_task[name] for of_task in first if name in of_task),
        )
        for place, (name, one) in enumerate(corrupted.items())
    ]
    scores = {task.measure: mean_difference(total[task.measure], task.clusters) for task in tasks}
    error = float(np.mean([one.scores.calibration_error for one in found]))
    return Robustness(
        clean=scores_of(tasks, nothing, {}, calibration_error(tasks, predictions.logit, temperature)),
        scores=scores_of(tasks, total, scores, error),
        tables=of_mean,
        corruptions=tuple(found),
    )


def of_corruption(
    name: str,
    tasks: Sequence[Task],
    lost: Losses,
    corrupted: Corrupted,
    tables: tuple[GroupTable, ...],
    temperature: float | None,
) -> OfCorruption:
    """The numbers of a corruption, by the losses (n, 5) of each task."""
    with_mean = {measure: np.column_stack([losses, losses.mean(1)]) for measure, losses in lost.items()}
    of_task = {task.measure: mean_differences(with_mean[task.measure], task.clusters) for task in tasks}
    errors = [calibration_error(tasks, logit, temperature) for logit in corrupted.logit.T]
    *scores, mean = [
        scores_of(
            tasks,
            {measure: losses[:, place] for measure, losses in with_mean.items()},
            {measure: of_places[place] for measure, of_places in of_task.items()},
            error,
        )
        for place, error in enumerate([*errors, float(np.mean(errors))])
    ]
    corruption = CORRUPTIONS[name]
    return OfCorruption(
        name=name,
        unit=corruption.unit,
        scores=mean,
        severities=tuple(
            OfSeverity(severity=severity, strength=float(strength), scores=of_severity)
            for severity, strength, of_severity in zip(SEVERITIES, corruption.strengths, scores, strict=True)
        ),
        tables=tables,
    )


def scores_of(tasks: Sequence[Task], lost: Losses, means: Mapping[Measure, Score], calibration_error: float) -> Scores:
    """The scores, by what each image lost (n,) and the means of that, which the clean images have not."""
    penalties = {task.measure: task.clean + lost[task.measure] for task in tasks}
    recalls = {}
    for task in tasks:
        if task.measure == "accuracy_lost":
            classes = {name: task.images.label == code for code, name in enumerate(CLASSES)}
            recalls = {name: 1 - float(penalties[task.measure][of].mean()) for name, of in classes.items() if of.any()}
    means_of = {measure: float(values.mean()) for measure, values in penalties.items()}
    return Scores(
        accuracy=1 - means_of.get("accuracy_lost", math.nan),
        accuracy_lost=means.get("accuracy_lost"),
        recalls=recalls,
        calibration_error=calibration_error,
        age_mae=means_of.get("age_mae_added", math.nan),
        age_mae_added=means.get("age_mae_added"),
    )


def calibration_error(tasks: Sequence[Task], logit: npt.NDArray[np.float32], temperature: float | None) -> float:
    """Of log-odds of all images (n,); nan without gender."""
    for task in tasks:
        if task.measure == "accuracy_lost":
            known = logit[task.known].astype(np.float64)
            return calibration(known / (temperature or 1.0), task.images.label == 1).ece
    return math.nan
