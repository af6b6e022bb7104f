"""The cells of a matrix: what the seeds of a model score on a test set, by threshold and temperature of validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.compare.seeds import EvaluatedRun, models_of, same_images, spread
from hpcgender.compare.variance import of_images, of_seeds, t_interval, within_1
from hpcgender.data.packs import manifests_in
from hpcgender.evaluate.calibration import excesses, fit_temperature
from hpcgender.evaluate.decision import EVALUATIONS
from hpcgender.evaluate.gender import equal_error, gender_scores, roc_curve
from hpcgender.evaluate.groups import columns_of, group_tables
from hpcgender.evaluate.predictions import Predictions, read_predictions
from hpcgender.evaluate.resample import clusters_of
from hpcgender.evaluate.results import FILE, Evaluation, Gap, Score, read_evaluation
from hpcgender.report.sources import Part
from shard_tools.base.errors import UserError

VALIDATION = "val"
GROUPS = ("group", "gender")
"""The column whose largest gap counts: the first of these that the test set has."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a run's evaluations on what it was validated on say of its log-odds, together if there are several."""

    threshold: float = 0.0
    """Log-odds above which male is predicted: where both classes' errors are equal."""
    temperature: float = 1.0
    """What log-odds are divided by for calibrated probabilities; 1 if `calibrated` is false."""
    known: bool = False
    """Whether there is such an evaluation, with images of both classes."""
    calibrated: bool = False
    """Whether a temperature fits: none does where all images are classified correctly."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A column."""

    __test__ = False  # says pytest

    name: str
    path: str
    split: str
    manifest: str
    left_out: bool
    """Whether images that a model was trained on are left out, by --without-trained."""
    flip: bool
    """Whether predictions are averages over each image and its mirror image."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model on a test set."""

    model: str
    test_set: str
    runs: int
    """Seeds that were evaluated."""
    images: int
    """Of known gender that all of them predict."""
    accuracy: Score
    """At the threshold of validation; of several seeds the mean, and an interval that counts seeds and images."""
    balanced_accuracy: Score
    gap: Gap | None
    """Largest difference of accuracy between two groups of 30 subjects or more; its interval counts images alone."""
    calibration_error: Score
    """Expected calibration error with the temperature of validation, mean over the seeds; its interval counts seeds and
    images."""
    validated: bool
    """Whether all runs have an evaluation on what they were validated on: else the threshold is 0.5, no temperature."""
    calibrated: bool
    """Whether a temperature fits of all runs; where none does, log-odds are as they are."""
    trained_on: int | None
    """Images of the set that lie byte for byte in the training split of a run, the most of all; None: not known."""
    chose_epoch: bool
    """Whether the best epoch of a run was chosen on this set."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All cells that were evaluated."""

    models: tuple[str, ...]
    test_sets: tuple[TestSet, ...]
    cells: tuple[Cell, ...]

    def cell(self, model: str, test_set: str) -> Cell | None:
        """The cell of a model and a test set; None if it was not evaluated there."""
        return next((cell for cell in self.cells if (cell.model, cell.test_set) == (model, test_set)), None)


def matrix_of(parts: Sequence[Part]) -> Matrix:
    """The matrix of the evaluations that were found, which is empty if none of them is of gender on a test set."""
    runs = [
        EvaluatedRun(name=part.name, results=evaluation, directory=directory)
        for part in parts
        for directory, evaluation in part.evaluations.items()
        if evaluation.gender and not (is_validation(evaluation) and evaluation.data.split == VALIDATION)
    ]
    sets = test_sets(run.results for run in runs)
    first_of_each = {run.results.checkpoint.digest: run for run in reversed(runs)}
    models = models_of(list(first_of_each.values())[::-1], by=lambda run: run.trained)
    model_of = {run.results.checkpoint.digest: name for name, several in models.items() for run in several}
    cells = []
    for name in models:
        for set_of_column, test_set in sets.items():
            here = newest(
                run
                for run in runs
                if model_of[run.results.checkpoint.digest] == name and set_of(run.results) == set_of_column
            )
            if here:
                cells.append(cell(name, test_set.name, here))
    return Matrix(models=tuple(models), test_sets=tuple(sets.values()), cells=tuple(cells))


def is_validation(evaluation: Evaluation) -> bool:
    """Whether its run chose its best epoch on these images; of one that chose none, whether they are its `val`."""
    data, checkpoint = evaluation.data, evaluation.checkpoint
    if checkpoint.options.get("val_split") == "none":
        return data.split == VALIDATION and data.manifest in manifests_in(checkpoint.manifest)
    return evaluation.chose_epoch


def set_of(evaluation: Evaluation) -> tuple[str, str, bool, bool]:
    """What tells test sets apart: manifest, split, whether trained images are left out, whether all are mirrored."""
    data = evaluation.data
    return data.manifest, data.split, data.trained_on.left_out, evaluation.options.flip


def test_sets(evaluations: Iterable[Evaluation]) -> dict[tuple[str, str, bool, bool], TestSet]:
    """The sets that were evaluated, in their order, each once."""
    found: dict[tuple[str, str, bool, bool], TestSet] = {}
    for evaluation in evaluations:
        key = manifest, split, left_out, flip = set_of(evaluation)
        more = [*(["without trained"] if left_out else []), *(["mirrored too"] if flip else [])]
        name = ", ".join([Path(evaluation.data.path).name, split, *more])
        if key not in found and name in {one.name for one in found.values()}:
            name = f"{name} ({manifest[:6]})"
        path = evaluation.data.path
        found.setdefault(
            key, TestSet(name=name, path=path, split=split, manifest=manifest, left_out=left_out, flip=flip)
        )
    return found


def newest(runs: Iterable[EvaluatedRun]) -> list[EvaluatedRun]:
    """Of several evaluations of one checkpoint the newest."""
    found: dict[str, EvaluatedRun] = {}
    for run in sorted(runs, key=lambda run: run.results.run.began):
        found[run.results.checkpoint.digest] = run
    return list(found.values())


def cell(model: str, test_set: str, runs: Sequence[EvaluatedRun]) -> Cell:
    """What the runs of a model score on a test set; UserError if they were evaluated on different images of it."""
    validations = [validation_of(run.results, run.directory) for run in runs]
    decided = [
        replace(run.predictions, logit=run.predictions.logit - np.float32(validation.threshold))
        for run, validation in zip(runs, validations, strict=True)
    ]
    same_images(runs)
    known = np.logical_and.reduce([one.gender_known for one in decided])
    decided = [one.rows(known) for one in decided]
    male = decided[0].label == 1
    off = np.array(
        [
            excesses((one.logit + validation.threshold) / validation.temperature, male)
            for one, validation in zip(decided, validations, strict=True)
        ]
    )
    accuracy, balanced = scores(decided)
    trained_on = [run.results.data.trained_on for run in runs]
    unknown = any(one.images is None for one in trained_on)
    return Cell(
        model=model,
        test_set=test_set,
        runs=len(runs),
        images=len(decided[0]),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        gap=gap(decided),
        calibration_error=calibration_error(off, clusters_of(decided[0].subject)),
        validated=all(validation.known for validation in validations),
        calibrated=all(validation.calibrated for validation in validations),
        trained_on=None if unknown else max((one.images or 0) if not one.left_out else 0 for one in trained_on),
        chose_epoch=any(run.results.chose_epoch for run in runs),
    )


def validation_of(evaluation: Evaluation, directory: Path) -> Validation:
    """Threshold and temperature by the evaluations of the same checkpoint on what it was validated on, if there is one.

    Of a mixture all of its data sets that were evaluated count, an image like any other. Where the best epoch was
    chosen on the images of `evaluation` themselves, they do not count.
    """
    checkpoint = evaluation.checkpoint
    beside = {directory.resolve().parent, (Path(checkpoint.path).parent.parent / EVALUATIONS).resolve()}
    newest_on: dict[str, tuple[str, Path]] = {}
    for file in sorted(file for folder in beside for file in folder.glob(f"*/{FILE}")):
        with suppress(UserError):  # of another version, which nobody asked for
            found = read_evaluation(file.parent)
            same = found.checkpoint.digest == checkpoint.digest and found.options.flip == evaluation.options.flip
            itself = (found.data.manifest, found.data.split) == (evaluation.data.manifest, evaluation.data.split)
            if same and found.gender and is_validation(found) and not itself:
                this = (found.run.began, file.parent)
                newest_on[found.data.manifest] = max(newest_on.get(found.data.manifest, this), this)
    of_each = [read_predictions(path) for _, path in newest_on.values()]
    of_each = [one.rows(one.gender_known) for one in of_each]
    male = np.concatenate([one.label == 1 for one in of_each]) if of_each else np.zeros(0, dtype=bool)
    if not male.any() or male.all():
        return Validation()
    logit = np.concatenate([one.logit for one in of_each])
    temperature = fit_temperature(logit, male)
    return Validation(
        threshold=equal_error(logit, male, *roc_curve(logit, male)).threshold,
        temperature=temperature or 1.0,
        known=True,
        calibrated=temperature is not None,
    )


def scores(decided: Sequence[Predictions]) -> tuple[Score, Score]:
    """Accuracy and balanced accuracy of one run, or of several as their mean."""
    if len(decided) == 1:
        scored = gender_scores(decided[0], None)
        return scored.accuracy, scored.balanced_accuracy
    label = decided[0].label
    right = np.array([one.prediction == one.label for one in decided], dtype=np.float64)
    classes = np.bincount(label, minlength=2)
    # The mean of the classes' recalls is a mean over images that weighs the classes alike.
    weights = len(label) / (np.count_nonzero(classes) * classes[label])
    clusters = clusters_of(decided[0].subject)
    accuracy = spread(right, clusters)
    assert accuracy
    mean = right.mean(axis=0)
    recall = np.bincount(label, mean, minlength=2) / np.maximum(classes, 1)
    # Of a mean of two recalls, an image is off by as much as it is off the recall of its own class.
    terms = [of_seeds(right * weights), of_images(weights * (mean - recall[label]), clusters)]
    balanced, _ = t_interval(float(recall[classes > 0].mean()), terms)
    return within_1(accuracy.mean), within_1(balanced)


def calibration_error(off: npt.NDArray[np.float64], clusters: npt.NDArray[np.int64]) -> Score:
    """The expected calibration error of one run, or of several as their mean, from what is off (runs, images)."""
    seeds = [of_seeds(off)] if len(off) > 1 else []
    found, _ = t_interval(float(off.mean()), [*seeds, of_images(off.mean(axis=0), clusters)])
    return within_1(found)


def gap(decided: Sequence[Predictions]) -> Gap | None:
    """The largest gap of accuracy between groups, of the mean over runs; None without two large groups."""
    columns = columns_of(decided[0])
    column = next((name for name in GROUPS if name in columns), None)
    if column is None:
        return None
    right = np.mean([one.prediction == one.label for one in decided], axis=0)
    (table,) = group_tables(decided[0], {column: columns[column]}, right, "accuracy")
    return table.gap
