"""Intervals of three seeds in simulation: of one model and of two with the same seeds, of one image or several of each
subject. What counts less than all that varies holds the truth too rarely."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from hpcgender.compare.seeds import difference_terms, spread
from hpcgender.compare.variance import half_length, t_interval

Floats = npt.NDArray[np.float64]

SEEDS, IMAGES, CASES = 3, 600, 300
EASE = (2.2, 2.0)
"""Of the two models: the log-odds of being right about an image that is as easy as most."""
SPREADS = {
    "subject": 1.3,
    "subject of the model": 1.3,
    "image": 0.7,
    "image of the run": 0.5,
}
"""Standard deviations of what is added to the log-odds, for each of these anew; seeds and subjects of both models are
the same. Seeds have two besides: of both models, and of each."""


def simulated(generator: np.random.Generator, clusters: npt.NDArray[np.int64], of_seed: float) -> Floats:
    """Whether the runs of two models are right about images of some subjects, (2, seeds, images)."""
    subjects = clusters.max() + 1

    def draw(name: str, *shape: int) -> Floats:
        return generator.normal(0, SPREADS[name], shape)

    ease = (
        np.reshape(EASE, (2, 1, 1))
        + generator.normal(0, of_seed, (1, SEEDS, 1))
        + generator.normal(0, of_seed, (2, SEEDS, 1))
        + draw("subject", 1, 1, subjects)[..., clusters]
        + draw("subject of the model", 2, 1, subjects)[..., clusters]
        + draw("image", 1, 1, IMAGES)
        + draw("image of the run", 2, SEEDS, IMAGES)
    )
    right: Floats = (generator.logistic(size=ease.shape) < ease).astype(np.float64)
    return right


def truth(ease: float, of_seed: float) -> float:
    """The accuracy over all seeds, subjects and images."""
    places, weights = np.polynomial.hermite_e.hermegauss(60)
    deviation = sum(value**2 for value in (of_seed, of_seed, *SPREADS.values())) ** 0.5
    return float((weights * stats.logistic.cdf(ease + deviation * places)).sum() / weights.sum())


@pytest.mark.parametrize(("each", "of_seed"), [(1, 0.3), (12, 0.1)])
def test_intervals_hold_the_truth_in_95_of_100_cases(each: int, of_seed: float) -> None:
    generator = np.random.default_rng(3)
    clusters, alone = np.arange(IMAGES) // each, np.arange(IMAGES)
    accuracy, other = (truth(ease, of_seed) for ease in EASE)
    difference = accuracy - other
    held: Counter[str] = Counter()
    lengths = {True: 0.0, False: 0.0}
    for _ in range(CASES):
        first, second = simulated(generator, clusters, of_seed)
        for name, of in (("mean", clusters), ("mean, images alone", alone)):
            found = spread(first, of)
            assert found
            held[name] += found.mean.low <= accuracy <= found.mean.high
        value = float(first.mean() - second.mean())
        terms = {same: difference_terms(first, second, clusters, same_seeds=same) for same in (True, False)}
        images_alone = difference_terms(first, second, alone, same_seeds=True)
        for name, counted in (
            ("difference", terms[True]),
            ("difference, images alone", images_alone),
            ("difference, these seeds", terms[True][-1:]),
        ):
            score, _ = t_interval(value, counted)
            held[name] += score.low <= difference <= score.high
        for same, counted in terms.items():
            lengths[same] += half_length(0.05, counted)
    assert 0.94 <= held["mean"] / CASES <= 0.99, held
    assert 0.93 <= held["difference"] / CASES <= 0.99, held
    if each > 1:
        assert held["mean, images alone"] / CASES < 0.93, held
        assert held["difference, images alone"] / CASES < 0.93, held
    else:
        assert held["difference, these seeds"] / CASES < 0.8, held
        assert lengths[True] < 0.9 * lengths[False]
