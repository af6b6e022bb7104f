"""Intervals: the bootstrap against a slow one, and how often both kinds hold what is true."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from hpcgender.evaluate.gender import gender_scores
from hpcgender.evaluate.groups import coded_column, columns_of, differences_of, group_tables, joint_group_tables
from hpcgender.evaluate.predictions import Predictions
from hpcgender.evaluate.resample import (
    Floats,
    area_score,
    clusters_of,
    drawn_score,
    parts,
    proportion_score,
    resampled_sums,
    weights,
    wilson,
)
from hpcgender.evaluate.results import Group, GroupTable, Score
from tests.hpcgender.evaluate.examples import labelled, predictions

DRAWS = 1000


def slow_draws(predicted: Predictions) -> list[Predictions]:
    """What the bootstrap is: of each draw, all images of the subjects drawn, as often as these were."""
    clusters = clusters_of(predicted.subject)
    members = [np.flatnonzero(clusters == number) for number in range(clusters.max() + 1)]
    return [
        predicted.rows(np.concatenate([np.tile(images, times) for images, times in zip(members, drawn, strict=True)]))
        for several in weights(len(members))
        for drawn in several.tolist()
    ]


@pytest.mark.parametrize("subjects", [0, 25])
def test_the_bootstrap_is_the_slow_one(subjects: int) -> None:
    predicted = labelled(150, subjects)
    scores = gender_scores(predicted, None)
    draws = slow_draws(predicted)
    assert len(draws) == DRAWS

    def interval(values: list[float]) -> list[float]:
        return [float(end) for end in np.percentile(values, (2.5, 97.5))]

    def of(score: Score) -> object:
        return pytest.approx([score.low, score.high], abs=1e-5)

    recalls = [[np.mean(d.prediction[d.label == code] == code) for code in (0, 1)] for d in draws]
    assert interval([float(np.mean(both)) for both in recalls]) == of(scores.balanced_accuracy)
    assert interval([area(d) for d in draws]) == of(scores.roc_auc)
    precisions = [np.mean(d.label[d.prediction == 1]) for d in draws]
    f1 = [float(2 * p * recall / (p + recall)) for p, (_, recall) in zip(precisions, recalls, strict=True)]
    assert interval(f1) == of(scores.classes[1].f1)
    assert interval([distance(d) for d in draws]) == of(scores.d_prime)
    mistaken = [float(np.abs(d.probability - d.label).mean()) for d in draws]
    assert interval(mistaken) == of(scores.probability_mae)
    if subjects:
        assert interval([float(np.mean(d.label == d.prediction)) for d in draws]) == of(scores.accuracy)
        group = next(group for group in accuracy_tables(predicted)["group"].groups if group.value == "Black")
        only = [d.rows(d.group == "Black") for d in draws]
        assert interval([float(np.mean(d.label == d.prediction)) for d in only]) == of(group.score)


def distance(predicted: Predictions) -> float:
    """d-prime."""
    logit = predicted.logit.astype(np.float64)
    men, women = logit[predicted.label == 1], logit[predicted.label == 0]
    return float((men.mean() - women.mean()) / math.sqrt((men.var() + women.var()) / 2))


def area(predicted: Predictions) -> float:
    """How often a man's log-odds are above a woman's, of all pairs."""
    above = predicted.logit[predicted.label == 1][:, None] - predicted.logit[predicted.label == 0]
    return float(np.mean((np.sign(above) + 1) / 2))


def accuracy_tables(predicted: Predictions) -> dict[str, GroupTable]:
    right = (predicted.prediction == predicted.label).astype(np.float64)
    return {table.column: table for table in group_tables(predicted, columns_of(predicted), right, "accuracy")}


def test_draws_are_of_all_clusters_with_replacement() -> None:
    drawn = np.concatenate(list(weights(500, draws=2000)))
    assert drawn.shape == (2000, 500)
    assert (drawn.sum(1) == 500).all()
    assert drawn.mean() == 1
    assert drawn.var() == pytest.approx(1 - 1 / 500, rel=0.01)
    assert np.array_equal(drawn[:, 0], np.concatenate(list(weights(500, draws=2000)))[:, 0])
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(0, abs=0.1)


def test_images_of_a_subject_are_one_cluster_and_those_without_one_each_their_own() -> None:
    subjects = np.array(["b", "", "a", "b", ""], dtype=object)
    assert clusters_of(subjects).tolist() == [0, 1, 2, 0, 3]


@given(st.integers(1, 400), st.data())
def test_wilsons_interval_is_where_the_normal_test_just_holds(total: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, total))
    low, high = wilson(right, total)

    def beyond(chance: float) -> float:
        return abs(right / total - chance) - float(norm.ppf(0.975)) * math.sqrt(chance * (1 - chance) / total)

    assert low == pytest.approx(brentq(beyond, 1e-12, right / total - 1e-9) if right else 0, abs=1e-8)
    assert high == pytest.approx(brentq(beyond, right / total + 1e-9, 1 - 1e-12) if right < total else 1, abs=1e-8)


def test_what_is_never_wrong_is_not_certain() -> None:
    drawn, nothing = np.full(DRAWS, 40.0), math.nan
    score = proportion_score(40, 40, 10, drawn, drawn)
    assert (score.value, score.method) == (1, "wilson")
    assert (score.low, score.high) == wilson(10, 10)
    assert proportion_score(0, 40, 0, drawn * 0, drawn).high == wilson(0, 40)[1]
    score = drawn_score(1.0, np.ones(DRAWS))
    assert [score.low, score.high] == pytest.approx([nothing, nothing], nan_ok=True)
    score = proportion_score(0, 0, 0, drawn * 0, drawn * 0)
    assert [score.value, score.low] == pytest.approx([nothing, nothing], nan_ok=True)


SUBJECTS, TRIALS, TRUE = 120, 400, 0.85


def simulated(draw: np.random.Generator, subjects: int = SUBJECTS) -> tuple[Floats, np.ndarray]:
    """Whether images are told right, and of which subject: 1 to 9 of each, whose own chance varies around 0.85."""
    images = draw.integers(1, 10, subjects)
    chance = draw.beta(8.5 / 4, 1.5 / 4, subjects)
    clusters = np.repeat(np.arange(subjects), images)
    return (draw.random(len(clusters)) < chance[clusters]).astype(np.float64), clusters


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    held, naive = 0, 0
    for trial in range(TRIALS):
        right, clusters = simulated(draw)
        total, summed = resampled_sums(np.column_stack([np.ones_like(right), right]), clusters, 400, trial).T
        score = proportion_score(int(right.sum()), len(right), SUBJECTS, summed, total)
        held += score.low <= TRUE <= score.high
        low, high = wilson(float(right.sum()), len(right))
        naive += low <= TRUE <= high
    assert 0.90 <= held / TRIALS <= 0.98
    assert naive / TRIALS < 0.85  # as if images of a subject were not alike


def test_intervals_of_areas_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    true = norm.cdf(1.5 / math.sqrt(2 * 1.25))  # of a man's log-odds above a woman's
    held = 0
    for trial in range(TRIALS):
        images = draw.integers(1, 6, 80)
        clusters = np.repeat(np.arange(80), images)
        logit = 1.5 * (clusters % 2) + draw.normal(size=80)[clusters] + 0.5 * draw.normal(size=len(clusters))
        score = area_score(logit, clusters % 2 == 1, clusters, 200, trial)
        held += score.low <= true <= score.high
    assert 0.90 <= held / TRIALS <= 0.98


@pytest.mark.parametrize(("groups", "true"), [(2, 0.0), (8, 0.0), (2, 0.1)])
def test_gaps_exclude_zero_by_chance_as_rarely_as_they_say(groups: int, true: float) -> None:
    draw = np.random.default_rng(groups)
    trials = 600
    excluded, held = 0, 0
    for trial in range(trials):
        subjects = np.repeat(np.arange(groups), 60)
        right = (draw.random(len(subjects)) < 0.85 + true * (subjects == 0)).astype(np.float64)
        members = (subjects[:, None] == np.arange(groups)).astype(np.float64)
        sums = resampled_sums(np.hstack([members, members * right[:, None]]), np.arange(len(subjects)), 300, trial)
        listed = []
        for group in range(groups):
            value = float(right[subjects == group].mean())
            score = Score(value=value, low=0, high=1)
            listed.append(Group(value=str(group), images=60, subjects=60, score=score, small=False))
        found = differences_of(listed, [60] * groups, parts(sums[:, groups:], sums[:, :groups]), "accuracy")
        gap = found.largest(found.most)
        excluded += gap.excludes_zero
        held += gap.score.low <= (true if gap.best == "0" else -true) <= gap.score.high
    if true:
        assert excluded / trials > 0.25
    else:
        assert excluded / trials < 0.08
    assert held / trials > 0.9


def test_a_small_group_that_lost_nothing_is_not_certain_to_lose_less() -> None:
    draw = np.random.default_rng(0)
    column = {"group": coded_column(np.array(["large"] * 1000 + ["small"] * 35, dtype=object))}
    predicted = predictions(1035)
    excluded, trials = 0, 200
    for _ in range(trials):
        lost = (draw.random(1035) < 0.02).astype(np.float64)
        (table,) = group_tables(predicted, column, lost, "accuracy_lost")
        assert table.gap
        excluded += table.gap.excludes_zero
    assert excluded / trials < 0.08
    harmed = np.where(np.arange(1035) < 1000, draw.random(1035) < 0.4, 0.0)
    (table,) = group_tables(predicted, column, harmed, "accuracy_lost")
    assert table.gap
    assert (table.gap.worst, table.gap.excludes_zero) == ("large", True)


def test_gaps_of_many_tables_exclude_zero_by_chance_as_rarely_as_those_of_one() -> None:
    draw = np.random.default_rng(0)
    named, named_alone, trials = 0, 0, 60
    predicted = predictions(400)
    for _ in range(trials):
        columns = {str(n): coded_column(draw.choice(np.array(["a", "b", "c"], dtype=object), 400)) for n in range(3)}
        lost = draw.normal(size=(400, 5))
        of_all = [table for tables in joint_group_tables(predicted, columns, lost, "age_mae_added") for table in tables]
        alone = [table for score in lost.T for table in group_tables(predicted, columns, score, "age_mae_added")]
        assert len(of_all) == len(alone) == 15
        named += any(table.gap and table.gap.excludes_zero for table in of_all)
        named_alone += any(table.gap and table.gap.excludes_zero for table in alone)
    assert named / trials < 0.14
    assert named_alone / trials > 0.3


def test_small_groups_are_marked_and_left_out_of_the_gap() -> None:
    predicted = labelled(600)
    group = np.where(np.arange(len(predicted)) < 20, "few", np.where(predicted.logit > 0, "many", "more")).astype(
        object
    )
    wrong = np.where(np.arange(len(predicted)) < 20, 1 - predicted.prediction, predicted.label)
    table = accuracy_tables(replace(predicted, group=group, label=wrong))["group"]
    assert [(found.value, found.small) for found in table.groups] == [("few", True), ("many", False), ("more", False)]
    assert table.groups[0].score.value == 0
    assert table.gap
    assert {table.gap.best, table.gap.worst} == {"many", "more"}
    few = accuracy_tables(
        replace(predicted, subject=np.array([f"s{n % 25}" for n in range(len(predicted))], dtype=object))
    )
    assert all(found.small and found.subjects <= 25 for found in few["gender"].groups)


def test_the_largest_gap_is_of_the_best_and_the_worst() -> None:
    predicted = labelled(800, subjects=300)
    table = accuracy_tables(predicted)["group"]
    by_score = sorted(table.groups, key=lambda group: group.score.value)
    assert table.gap
    assert (table.gap.worst, table.gap.best) == (by_score[0].value, by_score[-1].value)
    assert table.gap.score.value == pytest.approx(by_score[-1].score.value - by_score[0].score.value)
    errors = np.abs(np.random.default_rng(0).normal(size=len(predicted))) + 5 * (predicted.group == "White")
    ages = {t.column: t for t in group_tables(predicted, columns_of(predicted), errors, "age_mae")}["group"]
    assert ages.gap
    assert (ages.gap.worst, ages.gap.excludes_zero) == ("White", True)
    assert ages.gap.score.value == pytest.approx(5, abs=0.5)
