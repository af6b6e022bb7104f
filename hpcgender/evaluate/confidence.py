"""How often predictions of a confidence were right: what a confidence means to somebody who sees one prediction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcgender.evaluate.calibration import bins_of
from hpcgender.evaluate.predictions import Predictions, sigmoid
from hpcgender.evaluate.resample import clusters_of, count_subjects, proportion_score, resampled_sums
from hpcgender.evaluate.results import Score

EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Of the bins: finer where most confidences are; below 0.5 are those that a threshold of male other than 0.5 leaves."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """The images whose predicted gender has a confidence in [low, high), in the last bin up to 1."""

    low: float
    high: float
    images: int
    right: int
    """Of them, whose gender is the predicted one."""
    score: Score
    """The part of them that is right, with its interval of 95 %; nan of none."""


def confidence_bins(predictions: Predictions, temperature: float, threshold: float = 0.0) -> tuple[ConfidenceBin, ...]:
    """The bins between EDGES, of the images of known gender, male where the log-odds are above the threshold.

    For the confidence, log-odds are divided by the temperature first.
    """
    known = predictions.rows(predictions.gender_known)
    probability = sigmoid(known.logit / temperature)
    male = known.logit > threshold
    right = male == known.label
    place = bins_of(np.where(male, probability, 1 - probability), np.array(EDGES))
    inside = place[:, None] == np.arange(len(EDGES) - 1)
    features = np.column_stack([inside, inside & right[:, None]]).astype(np.float64)
    drawn = np.split(resampled_sums(features, clusters_of(known.subject)), 2, axis=1) if len(known) else []
    bins = []
    for number, (low, high) in enumerate(pairwise(EDGES)):
        images, hits = int(inside[:, number].sum()), int((inside[:, number] & right).sum())
        subjects = count_subjects(known.subject[inside[:, number]])
        score = (
            proportion_score(hits, images, subjects, drawn[1][:, number], drawn[0][:, number])
            if images
            else Score(value=float("nan"), low=float("nan"), high=float("nan"))
        )
        bins.append(ConfidenceBin(low=low, high=high, images=images, right=hits, score=score))
    return tuple(bins)


def bin_of(confidence: float, bins: tuple[ConfidenceBin, ...]) -> ConfidenceBin:
    """The bin that a confidence, 0 to 1, lies in."""
    return bins[int(bins_of(np.array([confidence]), np.array(EDGES))[0])]
