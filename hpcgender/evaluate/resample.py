"""Intervals of 95 %: Wilson's of a proportion, and the bootstrap that draws subjects with all of their images.

Images of one subject are alike, so that drawing images alone would make intervals too short: subjects are drawn, as
many as there are, with replacement, and all of the images of each come as often as it was drawn (the cluster bootstrap:
Field & Welsh, J. R. Statist. Soc. B 69, 2007). Its intervals reach from the 2.5th to the 97.5th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpcgender.evaluate.results import Score

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DRAWS = 1000
SEED = 0
BLOCK = 1 << 22
"""Numbers that are drawn at a time: few enough to stay near the processor, many enough for long products."""
EXACT = 2.0**20
"""Features are rounded to this part of 1, so that their sums are exact and the order of adding does not matter."""
Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


def clusters_of(subjects: npt.NDArray[np.object_]) -> Integers:
    """The number of each image's subject, int64 (n,), from 0; an image without one has a number of its own."""
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(s or image, len(numbers)) for image, s in enumerate(subjects.tolist())])


def weights(clusters: int, draws: int = DRAWS, seed: int = SEED) -> Iterator[Integers]:
    """How often each cluster comes in each draw: int64 (some draws, clusters) until there were `draws`."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(clusters, 1))
    for begin in range(0, draws, rows):
        count = min(rows, draws - begin)
        drawn = generator.integers(0, clusters, (count, clusters))
        drawn += np.arange(count)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=count * clusters).reshape(count, clusters)


def resampled_sums(features: Floats, clusters: Integers, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """The sums over the images of each draw, (draws, k), of features (n, k) rounded to 2**-20, which is exact.

    `clusters` are those of the images, from 0 without a gap.
    """
    order = np.argsort(clusters, kind="stable")
    first = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    of_clusters = np.empty((len(first), features.shape[1]))
    for column, feature in zip(of_clusters.T, features.T, strict=True):  # one at a time, of millions of images
        column[:] = np.add.reduceat(np.rint(feature * EXACT)[order], first)
    sums = [drawn.astype(np.float64) @ of_clusters for drawn in weights(len(first), draws, seed)]
    return np.concatenate(sums) / EXACT


def area_score(
    logit: npt.NDArray[np.floating],
    male: npt.NDArray[np.bool_],
    clusters: Integers,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Score:
    """The area under the ROC curve with the bootstrap's interval; nan without both classes.

    The Mann-Whitney statistic: the part of the pairs of a woman and a man in which his log-odds are higher, a tie
    being half a pair. A draw has a pair as often as both came: once sorted, it costs a running sum over the women.
    """
    women, men = (np.flatnonzero(of_class)[np.argsort(logit[of_class], kind="stable")] for of_class in (~male, male))
    if not len(women) or not len(men):
        return Score(value=math.nan, low=math.nan, high=math.nan)
    below = np.searchsorted(logit[women], logit[men], side="left")
    up_to = np.searchsorted(logit[women], logit[men], side="right")
    of_women, of_men = clusters[women], clusters[men]
    cumulated = np.zeros(len(women) + 1, dtype=np.int64)
    drawn_areas = []
    for several in weights(int(clusters.max()) + 1, draws, seed):
        for drawn in several:
            np.cumsum(drawn[of_women], out=cumulated[1:])
            times = drawn[of_men]
            half_pairs = np.dot(times, cumulated[below] + cumulated[up_to])
            pairs = times.sum() * cumulated[-1]
            drawn_areas.append(half_pairs / (2 * pairs) if pairs else math.nan)
    value = int(below.sum() + up_to.sum()) / (2 * len(women) * len(men))
    return drawn_score(value, np.array(drawn_areas))


def wilson(right: float, total: float) -> tuple[float, float]:
    """Wilson's score interval (J. Am. Stat. Assoc. 22, 1927) of `right` in `total`; nan of none."""
    if not total:
        return math.nan, math.nan
    part = right / total
    middle = (part + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * math.sqrt(part * (1 - part) / total + Z**2 / (4 * total**2))
    return max(0.0, middle - half) if right else 0.0, min(1.0, middle + half) if right < total else 1.0


def percentiles(drawn: Floats) -> tuple[float, float]:
    """The bootstrap's interval from a number in every draw, (draws,), but those where it is nan.

    nan if all draws are equal, as when no image is misclassified.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known) or known.min() == known.max():
        return math.nan, math.nan
    low, high = np.quantile(known, (0.025, 0.975)).tolist()
    return low, high


def drawn_score(value: float, drawn: Floats) -> Score:
    """A number with the bootstrap's interval."""
    low, high = percentiles(drawn)
    return Score(value=value, low=low, high=high)


def mean_difference(differences: Floats, clusters: Integers) -> Score:
    """The mean of differences (n,) of images, with the bootstrap's interval; `clusters` are their subjects' numbers."""
    return mean_differences(differences[:, None], clusters)[0]


def mean_differences(differences: Floats, clusters: Integers) -> tuple[Score, ...]:
    """The same of each column of differences (n, k), in the same draws."""
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = resampled_sums(np.column_stack([differences, np.ones(len(differences))]), numbers)
    drawn = (parts(column, sums[:, -1]) for column in sums[:, :-1].T)
    return tuple(drawn_score(float(mean), values) for mean, values in zip(differences.mean(0), drawn, strict=True))


def proportion_score(right: float, total: int, subjects: int, drawn_right: Floats, drawn_total: Floats) -> Score:
    """A proportion with its interval: Wilson's if no subject is known, else the bootstrap's.

    Where all or none are right the bootstrap would say that this is certain: there it is Wilson's for as many images
    as there are subjects.
    """
    value = right / total if total else math.nan
    low, high = percentiles(parts(drawn_right, drawn_total)) if subjects else (math.nan, math.nan)
    if not math.isnan(low):
        return Score(value=value, low=low, high=high)
    count = min(subjects or total, total)
    low, high = wilson(value * count if total else 0, count)
    return Score(value=value, low=low, high=high, method="wilson")


def parts(numerator: Floats, denominator: Floats) -> Floats:
    """Quotients, nan where the denominator is 0."""
    quotients: Floats = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotients, where=np.asarray(denominator) > 0)
    return quotients


def count_subjects(subjects: npt.NDArray[np.object_]) -> int:
    """Different subjects among those that are known."""
    return len(set(subjects.tolist()) - {""})
