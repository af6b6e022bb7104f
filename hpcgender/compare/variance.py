"""The variance of a mean over seeds and images, and its interval.

A run's accuracy is a draw twice: of the seed, which decides initial weights and the order of images, and of the test
images. The variance of a mean over S seeds has two parts: s2 / S, s2 being that of the seeds' means, and the
cluster-robust variance of the images' means over the seeds (Liang & Zeger, Biometrika 73, 1986; clusters are subjects
with all of their images). Each part by itself would give an interval by Student's t; half the length of the interval of
both is the root of the sum of their squares (Zou & Donner, Statistics in Medicine 27, 2008). For few seeds that is
rather too long than too short. A hierarchical bootstrap, which draws seeds and subjects, is too short for few seeds:
`tests/hpcgender/compare/test_seeds.py` simulates both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hpcgender.evaluate.results import Score

Floats = npt.NDArray[np.float64]

HALF_A_POINT = 0.005
"""A difference of accuracies that matters: models within it are equally accurate."""
SMALLEST = 1e-9
"""Of the p below which a difference counts."""
MOST = 1000
"""Seeds beyond which none are advised."""


@dataclass(frozen=True)
class Term:
    """A part of the variance of a mean."""

    variance: float
    degrees: int
    """Of freedom of its estimate."""
    of_seeds: bool


def of_seeds(values: Floats) -> Term:
    """The part of the seeds in the variance of the mean of scores (runs, images); nan of one run."""
    runs = len(values)
    variance = float(values.mean(axis=1).var(ddof=1)) / runs if runs > 1 else math.nan
    return Term(variance, runs - 1, of_seeds=True)


def of_images(values: Floats, clusters: npt.NDArray[np.int64]) -> Term:
    """The part of the images in the variance of the mean of scores (images,)."""
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = np.bincount(numbers, weights=values - values.mean())
    count = len(sums)
    variance = float((sums**2).sum()) / len(values) ** 2 * count / (count - 1) if count > 1 else math.nan
    return Term(variance, count - 1, of_seeds=False)


def t_interval(value: float, terms: Sequence[Term]) -> tuple[Score, float]:
    """A number with its interval of 95 %, and the two-sided p of its being 0.

    nan where a variance is, and where nothing varies, as when all runs are right about all images.
    """
    from scipy.optimize import brentq

    if not sum(term.variance for term in terms) > 0:
        return Score(value=value, low=math.nan, high=math.nan, method="seeds"), math.nan
    half = half_length(0.05, terms)
    p = SMALLEST
    if half_length(SMALLEST, terms) > abs(value):
        p = brentq(lambda p: half_length(p, terms) - abs(value), SMALLEST, 1)
    return Score(value=value, low=value - half, high=value + half, method="seeds"), float(p)


def within_1(score: Score) -> Score:
    """The interval of a fraction, without what lies below 0 and above 1."""
    return replace(score, low=max(score.low, 0.0), high=min(score.high, 1.0)) if score.low <= score.high else score


def half_length(p: float, terms: Sequence[Term]) -> float:
    """Half the length of the interval that holds the truth in all cases but a part `p`."""
    from scipy.stats import t  # 1 s, only where models are compared

    return math.sqrt(sum(float(t.isf(p / 2, term.degrees)) ** 2 * term.variance for term in terms))


def seeds_needed(terms: Sequence[Term]) -> int:
    """Seeds of each model with which the interval would reach half a point to either side; 0 if none would do."""
    seeds = [term for term in terms if term.of_seeds]
    images = [term for term in terms if not term.of_seeds]
    if any(math.isnan(term.variance) for term in terms) or half_length(0.05, images) > HALF_A_POINT:
        return 0
    for count in range(2, MOST + 1):
        so_many = [Term(term.variance * (term.degrees + 1) / count, count - 1, of_seeds=True) for term in seeds]
        if half_length(0.05, [*so_many, *images]) <= HALF_A_POINT:
            return count
    return 0
