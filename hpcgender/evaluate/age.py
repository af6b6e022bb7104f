"""Scores of age: the mean absolute error, the mean error, and the cumulative score."""

from __future__ import annotations

import math

import numpy as np

from hpcgender.evaluate.predictions import Floats, Predictions
from hpcgender.evaluate.resample import clusters_of, drawn_score, parts, resampled_sums
from hpcgender.evaluate.results import Age

YEARS = 20
"""Largest error of the cumulative score."""


def age_errors(predictions: Predictions) -> Floats:
    """Prediction minus age, years, of images of known and predicted age."""
    return predictions.age_prediction.astype(np.float64) - predictions.age


def age_loss(predictions: Predictions, kind: str) -> float:
    """The mean loss that training minimises: l1, mse or smooth_l1 (torch's, with beta 1); nan of another one."""
    error = np.abs(age_errors(predictions))
    losses = {"l1": error, "mse": error**2, "smooth_l1": np.where(error < 1, error**2 / 2, error - 0.5)}
    return float(losses[kind].mean()) if kind in losses else math.nan


def age_scores(predictions: Predictions) -> Age:
    """The scores of images of known and predicted age, of which there must be one."""
    errors = age_errors(predictions)
    features = np.column_stack([np.ones_like(errors), np.abs(errors), errors])
    count, absolute, signed = resampled_sums(features, clusters_of(predictions.subject)).T
    within = np.abs(errors)[:, None] <= np.arange(YEARS + 1)
    return Age(
        images=len(errors),
        mae=drawn_score(float(np.abs(errors).mean()), parts(absolute, count)),
        mean_error=drawn_score(float(errors.mean()), parts(signed, count)),
        cumulative=tuple(within.mean(0).tolist()),
    )
