from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hpcgender.compare.paired import McNemar, Pair, holm, mcnemar_test, pairs, verdict
from hpcgender.evaluate.predictions import Predictions
from hpcgender.evaluate.results import Score


def predictions(right: np.ndarray[tuple[int], np.dtype[np.bool_]], subjects: int, error: float = 1.0) -> Predictions:
    """Predictions of as many images, right where `right` is, of so many subjects in turn; ages are off by `error`."""
    count = len(right)
    label = np.arange(count) % 2
    text = [np.array([name.format(n) for n in range(count)], dtype=object) for name in ("k{:04}", "")]
    return Predictions(
        key=text[0],
        shard=text[1],
        subject=np.array([f"s{n % subjects}" if subjects else "" for n in range(count)], dtype=object),
        group=text[1],
        age=np.full(count, 30.0),
        label=label.astype(np.int64),
        logit=np.where(right, 1, -1).astype(np.float32) * (2 * label - 1).astype(np.float32),
        age_prediction=np.full(count, 30 + error, dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (1, 0), (5, 5), (3, 12), (40, 21), (500, 500), (450, 549)]
)
def test_mcnemar_is_exact_for_counts_up_to_a_thousand(first: int, second: int) -> None:
    found = mcnemar_test(first, second)
    assert found.exact
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [(501, 500), (600, 700), (9000, 10000)])
def test_mcnemar_is_nearly_exact_beyond(first: int, second: int) -> None:
    found = mcnemar_test(first, second)
    assert not found.exact
    assert found.p == pytest.approx(stats.chi2.sf((abs(first - second) - 1) ** 2 / (first + second), 1), rel=1e-9)
    assert found.p == pytest.approx(stats.binomtest(first, first + second).pvalue, rel=0.02)


def test_holm_corrects_for_the_number_of_pairs() -> None:
    # 0.01 * 4, then 0.02 * 3, then 0.03 * 2 but not below the one before, then 0.9.
    assert holm([0.9, 0.01, 0.03, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def one_pair(first: Predictions, second: Predictions) -> tuple[Pair, Score]:
    (found,) = pairs([("a", first), ("b", second)])
    assert found.accuracy
    return found, found.accuracy


def test_a_pair_counts_who_alone_is_right() -> None:
    right = np.ones(100, dtype=bool)
    right[:30] = False
    other = np.ones(100, dtype=bool)
    other[25:37] = False
    found, accuracy = one_pair(predictions(right, 0, error=3), predictions(other, 0, error=1))
    assert found.mcnemar
    assert (found.mcnemar.only_first, found.mcnemar.only_second) == (7, 25)
    assert found.images == 100
    assert accuracy.value == pytest.approx(-0.18)
    assert accuracy.low < -0.18 < accuracy.high < 0
    assert found.age_mae
    assert found.age_mae.value == pytest.approx(2)


def test_the_interval_of_a_difference_is_a_plain_bootstraps() -> None:
    generator = np.random.default_rng(3)
    right, other = (generator.random(300) < part for part in (0.9, 0.8))
    _, accuracy = one_pair(predictions(right, 60), predictions(other, 60))
    differences = right.astype(float) - other
    of_subjects = [np.flatnonzero(np.arange(300) % 60 == subject) for subject in range(60)]
    drawn = [
        differences[np.concatenate([of_subjects[subject] for subject in generator.integers(0, 60, 60)])].mean()
        for _ in range(2000)
    ]
    assert (accuracy.low, accuracy.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.012)


def test_images_of_one_subject_count_less_than_as_many_of_others() -> None:
    right = np.ones(200, dtype=bool)
    other = np.arange(200) % 20 >= 5  # five of twenty subjects are always misclassified
    _, clustered = one_pair(predictions(right, 20), predictions(other, 20))
    _, single = one_pair(predictions(right, 0), predictions(other, 0))
    assert clustered.value == single.value == pytest.approx(0.25)
    assert clustered.high - clustered.low > 2 * (single.high - single.low)


def test_equal_models_do_not_differ() -> None:
    right = np.arange(50) % 5 > 0
    found, accuracy = one_pair(predictions(right, 10), predictions(right, 10))
    assert accuracy.value == 0
    assert math.isnan(accuracy.low)
    assert found.mcnemar
    assert found.mcnemar.p == 1


def test_three_models_make_three_pairs_corrected_together() -> None:
    right = [np.arange(400) % part > 0 for part in (20, 10, 2)]
    found = pairs([(name, predictions(one, 0)) for name, one in zip("abc", right, strict=True)])
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    tests = [pair.mcnemar for pair in found if pair.mcnemar]
    assert [test.p_holm for test in tests] == holm([test.p for test in tests])
    assert all(test.p_holm >= test.p for test in tests)


@pytest.mark.parametrize(
    ("low", "high", "p", "alone", "words"),
    [
        (0.01, 0.03, 0.02, True, "a is more accurate than b, by 2.00 points: more than chance."),
        (0.01, 0.03, 0.08, False, "Whether a or b is more accurate is unclear with 150 images."),
        (-0.01, 0.05, 0.02, True, "Whether a or b is more accurate is unclear with 150 images."),
        (math.nan, math.nan, 1.0, True, "Whether a or b is more accurate is unclear with 150 images."),
    ],
)
def test_a_pair_is_concluded_in_a_sentence(low: float, high: float, p: float, alone: bool, words: str) -> None:
    test = McNemar(only_first=9, only_second=6, p=p, exact=True, p_holm=p)
    score = Score(value=0.02, low=low, high=high)
    found = Pair(first="a", second="b", images=150, accuracy=score, mcnemar=test, age_mae=None)
    assert verdict(found, alone=alone) == words
