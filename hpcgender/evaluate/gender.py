"""Scores of gender: accuracy, precision and recall, the ROC curve, the equal error, d-prime, with intervals.

Male is the positive class: a woman predicted male is a false positive.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcgender.evaluate.calibration import calibration
from hpcgender.evaluate.predictions import Mask, Predictions, sigmoid
from hpcgender.evaluate.resample import (
    Floats,
    area_score,
    clusters_of,
    count_subjects,
    drawn_score,
    parts,
    proportion_score,
    resampled_sums,
)
from hpcgender.evaluate.results import Baseline, ClassScores, EqualError, Gender, RocPoint, Temperature
from shard_tools.manifest import CLASSES

ROC_POINTS = 500


def gender_scores(predictions: Predictions, temperature: Temperature | None) -> Gender:
    """The scores of images of known and predicted gender, of which there must be one."""
    label, prediction = predictions.label, predictions.prediction
    logit, subject = predictions.logit, predictions.subject
    male = label == 1
    clusters = clusters_of(subject)
    # What the bootstrap adds up: the cells of the confusion matrix, row after row, and log-odds and their squares.
    cell = 2 * label + prediction
    cells = np.column_stack([cell == number for number in range(4)]).astype(np.float64)
    powers = [of_class * logit.astype(np.float64) ** power for of_class in (~male, male) for power in (1, 2)]
    wrong = np.abs(predictions.probability - male)
    sums = resampled_sums(np.column_stack([cells, *powers, wrong]), clusters)
    counts = cells.sum(0).reshape(2, 2)
    drawn = sums[:, :4].reshape(-1, 2, 2)

    classes = []
    for code, name in enumerate(CLASSES):
        images, predicted = int(counts[code].sum()), int(counts[:, code].sum())
        right = int(counts[code, code])
        drawn_right = drawn[:, code, code]
        classes.append(
            ClassScores(
                name=name,
                images=images,
                predicted=predicted,
                precision=proportion_score(
                    right, predicted, count_subjects(subject[prediction == code]), drawn_right, drawn[:, :, code].sum(1)
                ),
                recall=proportion_score(
                    right, images, count_subjects(subject[label == code]), drawn_right, drawn[:, code].sum(1)
                ),
                f1=drawn_score(float(f1(counts, code)), f1(drawn, code)),
            )
        )
    curve = roc_curve(logit, male) if male.any() and not male.all() else None
    return Gender(
        images=len(predictions),
        accuracy=proportion_score(
            int(counts.trace()),
            len(predictions),
            count_subjects(subject),
            drawn[:, 0, 0] + drawn[:, 1, 1],
            drawn.sum((1, 2)),
        ),
        baseline=majority_baseline(counts, drawn) if counts.sum(1).all() else None,
        balanced_accuracy=drawn_score(float(balanced_accuracy(counts)), balanced_accuracy(drawn)),
        roc_auc=area_score(logit, male, clusters),
        d_prime=drawn_score(
            float(d_prime(counts, np.array([power.sum() for power in powers]))),
            d_prime(drawn, sums[:, 4:8]),
        ),
        probability_mae=drawn_score(float(wrong.mean()), parts(sums[:, 8], sums[:, :4].sum(1))),
        classes=tuple(classes),
        confusion=tuple(tuple(row) for row in counts.astype(int).tolist()),
        roc=thinned(*curve) if curve else (),
        equal_error=equal_error(logit, male, *curve) if curve else None,
        calibration=calibration(logit, male),
        temperature=temperature,
    )


def majority_baseline(counts: Floats, drawn: Floats) -> Baseline:
    """The baseline of a confusion matrix (2, 2), labels by predictions, and of those of all draws (draws, 2, 2).

    The model gains the images of the other class that it classifies correctly, and loses those of the majority class
    that it does not.
    """
    most = int(counts.sum(1).argmax())

    def gain(cells: Floats) -> Floats:
        return parts(cells[..., 1 - most, 1 - most] - cells[..., most, 1 - most], cells.sum((-2, -1)))

    return Baseline(
        name=CLASSES[most],
        accuracy=float(counts[most].sum() / counts.sum()),
        difference=drawn_score(float(gain(counts)), gain(drawn)),
    )


def f1(cells: Floats, code: int) -> Floats:
    """F1 of a class in confusion matrices (..., 2, 2), labels by predictions; nan of a class without images."""
    images = cells[..., code, :].sum(-1)
    value = parts(2 * cells[..., code, code], images + cells[..., :, code].sum(-1))
    return np.where(images > 0, value, np.nan)


def balanced_accuracy(cells: Floats) -> Floats:
    """The mean recall of the classes that have images, in confusion matrices (..., 2, 2)."""
    images = cells.sum(-1)
    recalls = parts(np.diagonal(cells, axis1=-2, axis2=-1), images)
    return parts(np.nansum(recalls, axis=-1), np.count_nonzero(images, axis=-1))


def d_prime(cells: Floats, moments: Floats) -> Floats:
    """Distance of the mean log-odds of men and women, in root mean squares of both standard deviations.

    From confusion matrices (..., 2, 2) and the sums (..., 4) of women's log-odds, their squares, men's and theirs.
    Negative where women's are higher; nan without both classes, or where the log-odds of each are all alike.
    """
    images = cells.sum(-1)
    means = parts(moments[..., ::2], images)
    variances = np.maximum(parts(moments[..., 1::2], images) - means**2, 0)
    return parts(means[..., 1] - means[..., 0], np.sqrt(variances.mean(-1)))


def roc_curve(logit: npt.NDArray[np.float32], male: Mask) -> tuple[Floats, Floats, Floats]:
    """All thresholds, descending, and the fractions of women and men with log-odds of at least those, float64 (k + 1,).

    The curve begins at (0, 0), where the threshold is nan.
    """
    order = np.argsort(-logit, kind="stable")
    last = np.flatnonzero(np.diff(logit[order], append=np.nan) != 0)  # of equal log-odds
    true = np.cumsum(male[order])[last]
    false = last + 1 - true
    thresholds = logit[order][last].astype(np.float64)
    return np.append(np.nan, thresholds), np.append(0, false / false[-1]), np.append(0, true / true[-1])


def thinned(thresholds: Floats, false: Floats, true: Floats) -> tuple[RocPoint, ...]:
    """At most 500 points of the curve: its corners, and if these are more, every k-th."""
    turns = (np.abs(np.diff(false, 2)) > 1e-12) | (np.abs(np.diff(true, 2)) > 1e-12)
    corners = np.flatnonzero(np.concatenate([[True], turns, [True]]))
    chosen = corners[np.unique(np.linspace(0, len(corners) - 1, min(ROC_POINTS, len(corners))).round().astype(int))]
    return tuple(
        RocPoint(threshold=threshold, false_positive=f, true_positive=t)
        for threshold, f, t in zip(*(array[chosen].tolist() for array in (thresholds, false, true)), strict=True)
    )


def equal_error(
    logit: npt.NDArray[np.float32], male: Mask, thresholds: Floats, false: Floats, true: Floats
) -> EqualError:
    """Where the curve's false positives are nearest to its false negatives; of equally near points the better one."""
    rate = (false + 1 - true) / 2
    place = np.lexsort((rate, np.abs(false - (1 - true)).round(12)))[0]
    # Halfway to the next lower log-odds, so that no image is at the threshold.
    whole = np.concatenate([thresholds[1:2], thresholds[1:], thresholds[-1:] - 1])
    threshold = float(whole[place : place + 2].mean())
    return EqualError(
        threshold=threshold,
        probability=float(sigmoid(np.array(threshold))),
        rate=float(rate[place]),
        accuracy=float(np.mean((logit > threshold) == male)),
    )
