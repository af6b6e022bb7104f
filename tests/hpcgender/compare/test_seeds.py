from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from hpcgender.compare.paired import Pair
from hpcgender.compare.seeds import (
    EvaluatedRun,
    GroupPair,
    compared,
    difference_terms,
    group_verdict,
    name_of,
    spread,
)
from hpcgender.compare.variance import Term, half_length, of_images, seeds_needed, t_interval
from hpcgender.evaluate.gender import gender_scores
from hpcgender.evaluate.predictions import Predictions
from hpcgender.evaluate.resample import resampled_sums
from hpcgender.evaluate.results import Options, Score
from hpcgender.matrix.cells import scores
from tests.hpcgender.compare.test_paired import predictions

Floats = npt.NDArray[np.float64]


def run(name: str, seed: int, right: Floats, subjects: int = 0, **options: Any) -> EvaluatedRun:
    """A run of that seed, right where `right` is; all else that is read of its evaluation is the same."""
    found = {"seed": seed, "name": name, "data": f"/data/{name}", "model": "resnet18", "lr": 0.1, **options}
    evaluation = SimpleNamespace(
        checkpoint=SimpleNamespace(options=found, manifest="0" * 64, path=f"/runs/{name}/checkpoints/best.pt"),
        options=Options(batch_size=64, backend="dali", precision="fp32", flip=False),
    )
    return with_predictions(
        EvaluatedRun(name=name, results=cast(Any, evaluation), directory=Path(name)),
        predictions(right.astype(bool), subjects),
    )


def with_predictions(run: EvaluatedRun, predictions: Predictions) -> EvaluatedRun:
    """The run, with predictions that need no file."""
    run.__dict__["predictions"] = predictions
    return run


def drawn(parts: list[float], images: int = 400, seed: int = 0) -> list[Floats]:
    generator = np.random.default_rng(seed)
    return [(generator.random(images) < part).astype(float) for part in parts]


def test_runs_that_differ_by_their_seed_alone_are_a_model() -> None:
    right = drawn([0.8, 0.82, 0.84, 0.6, 0.62, 0.61])
    runs = [run(f"se-seed{seed}", seed, right[seed]) for seed in (2, 0, 1)]
    runs += [run(f"plain-{seed}", seed, right[3 + seed], model="vgg16") for seed in (0, 1, 2)]
    groups, pairs = compared(runs)
    assert [(group.name, group.runs, group.seeds) for group in groups] == [
        ("se", ("se-seed0", "se-seed1", "se-seed2"), (0, 1, 2)),
        ("plain", ("plain-0", "plain-1", "plain-2"), (0, 1, 2)),
    ]
    accuracy = groups[0].accuracy
    assert accuracy
    means = [one.mean() for one in right[:3]]
    assert accuracy.mean.value == pytest.approx(np.mean(means))
    assert accuracy.deviation == pytest.approx(np.std(means, ddof=1))
    (pair,) = pairs
    assert isinstance(pair, GroupPair)
    assert pair.seeds == (3, 3)
    assert pair.same_seeds
    assert pair.accuracy
    assert pair.accuracy.value == pytest.approx(np.mean(means) - np.mean(right[3:]))
    assert group_verdict(pair, alone=True).startswith("se is more accurate than plain, by ")


def test_other_options_make_other_models_and_one_run_each_is_compared_as_runs() -> None:
    right = drawn([0.8, 0.8])
    groups, pairs = compared([run("a", 0, right[0]), run("b", 1, right[1], lr=0.2)])
    assert groups == ()
    (pair,) = pairs
    assert isinstance(pair, Pair)


def test_two_checkpoints_of_a_run_are_not_two_seeds() -> None:
    right = drawn([0.8, 0.8])
    one = run("a", 0, right[0])
    last = EvaluatedRun(name="a: last", results=one.results, directory=Path("last"))
    other = with_predictions(last, predictions(right[1].astype(bool), 0))
    groups, _ = compared([one, other])
    assert groups == ()


def test_a_seed_that_was_trained_twice_is_not_two_seeds() -> None:
    right = drawn([0.8, 0.8])
    groups, _ = compared([run("a", 0, right[0]), run("b", 0, right[1])])
    assert groups == ()


def test_models_that_are_right_about_the_same_images() -> None:
    right = np.ones(40)
    _, (found,) = compared(
        [run(f"{name}-{seed}", seed, right, lr=lr) for name, lr in (("a", 1), ("b", 2)) for seed in (0, 1)]
    )
    assert isinstance(found, GroupPair)
    assert group_verdict(found, alone=True) == "a and b are right about the same images."


def test_balanced_accuracy_over_seeds_is_as_sure_as_that_of_one_run() -> None:
    generator = np.random.default_rng(4)
    one = predictions(generator.random(1000) < 0.95, 0)
    one = replace(
        one,
        label=(np.arange(1000) % 10 == 0).astype(np.int64),
        logit=np.where(generator.random(1000) < 0.95, 1, -1).astype(np.float32)
        * (2 * (np.arange(1000) % 10 == 0) - 1).astype(np.float32),
    )
    alone = gender_scores(one, None).balanced_accuracy
    _, balanced = scores([one, one])
    assert balanced.value == pytest.approx(alone.value)
    assert balanced.high - balanced.low == pytest.approx(alone.high - alone.low, rel=0.15)
    _, perfect = scores([replace(one, logit=(2.0 * one.label - 1).astype(np.float32))] * 2)
    assert perfect.value == 1
    assert math.isnan(perfect.low)


def test_all_seeds_of_one_model_have_a_mean_and_no_pair() -> None:
    groups, pairs = compared([run(f"x{seed}", seed, one) for seed, one in enumerate(drawn([0.7, 0.8, 0.9]))])
    assert len(groups) == 1
    assert pairs == ()


def test_differences_between_runs_of_one_seed_each_are_taken_first() -> None:
    first, second = (np.array(drawn([0.8, 0.7, 0.9], seed=seed)) for seed in (1, 2))
    found, p = t_interval(0.1, difference_terms(first, second, np.arange(400), same_seeds=True))
    of_pairs = first.mean(axis=1) - second.mean(axis=1)
    half = stats.t.ppf(0.975, 2) * of_pairs.std(ddof=1) / math.sqrt(3)
    images = stats.t.ppf(0.975, 399) * (first - second).mean(axis=0).std(ddof=1) / 20
    assert (found.high - found.low) / 2 == pytest.approx(math.hypot(half, images))
    assert found.method == "seeds"
    # The interval that leaves out a part p ends at 0.
    assert half_length(p, difference_terms(first, second, np.arange(400), same_seeds=True)) == pytest.approx(0.1)


def test_the_part_of_the_images_is_that_of_the_bootstrap_of_subjects() -> None:
    generator = np.random.default_rng(5)
    clusters = generator.integers(0, 120, 600)
    values = generator.random(600) + generator.random(120)[clusters]
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = resampled_sums(np.column_stack([values, np.ones(600)]), numbers, draws=4000)
    assert of_images(values, clusters).variance == pytest.approx((sums[:, 0] / sums[:, 1]).var(), rel=0.08)


def simulated(generator: np.random.Generator, seeds: int, images: int) -> tuple[Floats, float]:
    """Whether each of so many runs is right about each image, and the accuracy that all seeds and images have."""
    of_seed = generator.normal(0, 0.25, (seeds, 1))
    of_image = generator.normal(0, 1.5, images)
    both = generator.normal(0, 0.7, (seeds, images))
    right = generator.logistic(size=(seeds, images)) < 2.2 + of_seed + of_image + both
    return right.astype(np.float64), TRUTH


def truth() -> float:
    generator = np.random.default_rng(0)
    deviation = math.sqrt(0.25**2 + 1.5**2 + 0.7**2)
    return float(stats.logistic.cdf(2.2 + generator.normal(0, deviation, 4_000_000)).mean())


TRUTH = truth()


def hierarchical(right: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """The interval of a bootstrap that draws seeds and images."""
    seeds, images = right.shape
    chosen = generator.integers(0, seeds, (400, seeds))
    counts = generator.multinomial(images, np.full(images, 1 / images), 400)
    means = [(right[rows].mean(axis=0) @ times) / images for rows, times in zip(chosen, counts, strict=True)]
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high


def test_intervals_of_three_seeds_hold_the_truth_in_95_of_100_cases() -> None:
    generator = np.random.default_rng(1)
    held: Counter[str] = Counter()
    cases, images = 300, 1000
    for _ in range(cases):
        right, accuracy = simulated(generator, 3, images)
        found = spread(right, np.arange(images))
        assert found
        alone, _ = t_interval(found.mean.value, [of_images(right[0], np.arange(images))])
        shift = right[0].mean() - found.mean.value
        low, high = hierarchical(right, generator)
        held["seeds and images"] += found.mean.low <= accuracy <= found.mean.high
        held["images of one run"] += alone.low + shift <= accuracy <= alone.high + shift
        held["bootstrap"] += low <= accuracy <= high
    assert 0.94 <= held["seeds and images"] / cases <= 0.99
    assert held["images of one run"] / cases < 0.75
    assert held["bootstrap"] / cases < 0.92


def pair(
    low: float, high: float, *, p_holm: float = 0.001, needed: int = 0, seeds: tuple[int, int] = (3, 3)
) -> GroupPair:
    score = Score(value=(low + high) / 2, low=low, high=high, method="seeds")
    return GroupPair(
        first="a",
        second="b",
        seeds=seeds,
        same_seeds=True,
        images=150,
        accuracy=score,
        p=0.001,
        p_holm=p_holm,
        needed=needed,
        age_mae=None,
    )


@pytest.mark.parametrize(
    ("found", "alone", "words"),
    [
        (pair(0.01, 0.03), True, "a is more accurate than b, by 2.00 points: more than chance of seeds and images."),
        (pair(-0.03, -0.01), True, "b is more accurate than a, by 2.00 points: more than chance of seeds and images."),
        (pair(-0.004, 0.003), True, "a and b are equally accurate, to within half a point."),
        (
            pair(0.01, 0.03, p_holm=0.08, needed=7),
            False,
            "Whether a or b is more accurate is unclear with 3 seeds: about 7 of each would show half a point.",
        ),
        (
            pair(-0.001, 0.008, needed=3),
            True,
            "Whether a or b is more accurate is unclear with 3 seeds: the difference is between -0.10 and +0.80 "
            "points.",
        ),
        (
            pair(-0.05, 0.03, seeds=(3, 2)),
            True,
            "Whether a or b is more accurate is unclear with 3 and 2 seeds on 150 images: more images are "
            "needed to show half a point.",
        ),
        (
            pair(math.nan, math.nan, seeds=(3, 1)),
            True,
            "Whether a or b is more accurate is unclear: train b with other seeds too.",
        ),
    ],
)
def test_a_pair_of_models_is_concluded_in_a_sentence(found: GroupPair, alone: bool, words: str) -> None:
    assert group_verdict(found, alone=alone) == words


def test_the_seeds_that_are_advised_would_tell_half_a_point() -> None:
    generator = np.random.default_rng(7)
    base = generator.random(20_000)
    first, second = (
        np.array([(base < part + generator.normal(0, 0.004)).astype(float) for _ in range(3)]) for part in (0.9, 0.905)
    )
    terms = difference_terms(first, second, np.arange(20_000), same_seeds=False)
    count = seeds_needed(terms)
    assert 3 < count < 60
    of_images = [term for term in terms if not term.of_seeds]

    def half(seeds: int) -> float:
        many = [Term(3 * term.variance / seeds, seeds - 1, of_seeds=True) for term in terms if term.of_seeds]
        return half_length(0.05, [*many, *of_images])

    assert half(count) <= 0.005 < half(count - 1)
    few = np.array(drawn([0.8, 0.8, 0.8], images=50)), np.array(drawn([0.8, 0.8, 0.8], images=50, seed=9))
    assert seeds_needed(difference_terms(few[0], few[1], np.arange(50), same_seeds=True)) == 0


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        (["se50-seed0", "se50-seed1", "se50-seed12"], "se50"),
        (["study/se50-0", "study/se50-1"], "study/se50"),
        (["morning", "evening"], "morning and 1 more"),
        (["0", "1"], "0 and 1 more"),
        (["faces-0", "faces-1"], "faces"),
        (["a-s0", "a-s1"], "a"),
        (["resnet50"], "resnet50"),
    ],
)
def test_a_model_is_named_by_what_its_runs_have_in_common(runs: list[str], name: str) -> None:
    assert name_of(runs) == name
