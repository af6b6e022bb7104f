"""Two models on the same images: the paired difference, its interval, and McNemar's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from hpcgender.evaluate.predictions import Predictions
from hpcgender.evaluate.resample import clusters_of, mean_difference
from hpcgender.evaluate.results import Score
from shard_tools.base.text import plural

SIGNIFICANT = 0.05
"""Corrected p below which one of several pairs differs."""
EXACT_UP_TO = 1000
"""Images on which two models differ, up to which McNemar's test is exact."""


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Whether two models are right about equally many images, of those about which one alone is right.

    McNemar, Psychometrika 12, 1947: exact, by the binomial distribution, up to 1,000 such images; beyond, chi-squared
    with Edwards' correction for continuity. Two-sided. It takes images as independent of each other.
    """

    only_first: int
    """Images about which the first is right and the second is not."""
    only_second: int
    p: float
    exact: bool
    p_holm: float
    """Corrected for the number of pairs that are compared (Holm, Scand. J. Statist. 6, 1979)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The first model minus the second one. None where one of them does not predict it, or no such label is known."""

    first: str
    second: str
    images: int
    """Of known gender with a prediction of both; 0 without."""
    accuracy: Score | None
    """The interval is the bootstrap's that draws subjects with their images; see `hpcgender.evaluate.resample`."""
    mcnemar: McNemar | None
    age_mae: Score | None
    """Years."""


def pairs(models: Sequence[tuple[str, Predictions]]) -> list[Pair]:
    """All pairs of models, by name, with their predictions of the same images in the same order."""
    found = [pair(*first, *second) for first, second in combinations(models, 2)]
    tested = [one.mcnemar.p for one in found if one.mcnemar]
    corrected = iter(holm(tested))
    return [replace(one, mcnemar=replace(one.mcnemar, p_holm=next(corrected))) if one.mcnemar else one for one in found]


def pair(first: str, of_first: Predictions, second: str, of_second: Predictions) -> Pair:
    known = of_first.gender_known & of_second.gender_known
    clusters = clusters_of(of_first.subject)
    accuracy = mcnemar = None
    if known.any():
        right = [(one.prediction == one.label)[known] for one in (of_first, of_second)]
        mcnemar = mcnemar_test(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
        accuracy = mean_difference(right[0].astype(np.float64) - right[1], clusters[known])
    aged = of_first.age_known & of_second.age_known
    age_mae = None
    if aged.any():
        errors = [np.abs(one.age_prediction - one.age)[aged] for one in (of_first, of_second)]
        age_mae = mean_difference(errors[0] - errors[1], clusters[aged])
    return Pair(
        first=first, second=second, images=int(known.sum()), accuracy=accuracy, mcnemar=mcnemar, age_mae=age_mae
    )


def verdict(pair: Pair, *, alone: bool) -> str:
    """A sentence: which of two models is more accurate, or that it is unclear.

    They differ by more than chance if the interval of the difference excludes zero and, of several pairs, Holm's p is
    below 0.05 too. `alone`: it is the only pair. Both must predict gender.
    """
    assert pair.accuracy
    assert pair.mcnemar
    better, worse = (pair.first, pair.second) if pair.accuracy.value > 0 else (pair.second, pair.first)
    excludes_zero = pair.accuracy.low > 0 or pair.accuracy.high < 0
    if excludes_zero and (alone or pair.mcnemar.p_holm < SIGNIFICANT):
        points = abs(pair.accuracy.value) * 100
        return f"{better} is more accurate than {worse}, by {points:.2f} points: more than chance."
    images = plural(pair.images, "image")
    return f"Whether {pair.first} or {pair.second} is more accurate is unclear with {images}."


def mcnemar_test(only_first: int, only_second: int) -> McNemar:
    """The test, of as many images about which the first, and the second, alone is right; not yet corrected."""
    from scipy.stats import binomtest, chi2  # 1 s, only where two models are compared

    differ, fewer = only_first + only_second, min(only_first, only_second)
    exact = differ <= EXACT_UP_TO
    if not differ:
        p = 1.0
    elif exact:
        p = float(binomtest(fewer, differ).pvalue)
    else:
        p = float(chi2.sf(max(abs(only_first - only_second) - 1, 0) ** 2 / differ, df=1))
    return McNemar(only_first=only_first, only_second=only_second, p=p, exact=exact, p_holm=p)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values, corrected for their number, in their order."""
    corrected = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, p[place] * (len(p) - rank)))
        corrected[place] = highest
    return corrected
