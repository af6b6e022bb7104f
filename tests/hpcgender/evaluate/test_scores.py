"""The numbers, against scikit-learn and SciPy; and how they are written down."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn import metrics as reference  # type: ignore[import-untyped]
from sklearn.calibration import calibration_curve  # type: ignore[import-untyped]

from hpcgender.evaluate import results
from hpcgender.evaluate.age import age_loss, age_scores
from hpcgender.evaluate.calibration import calibration, fit_temperature
from hpcgender.evaluate.errors import mistakes
from hpcgender.evaluate.gender import gender_scores
from hpcgender.evaluate.groups import columns_of
from hpcgender.evaluate.predictions import Predictions, read_predictions, write_predictions
from hpcgender.evaluate.results import Evaluation, read_evaluation
from hpcgender.evaluate.summary import against_baseline, table_lines
from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES
from tests.hpcgender.evaluate.examples import evaluation_facts, labelled, predictions


@pytest.mark.parametrize("subjects", [0, 40])
def test_scores_of_gender_are_scikit_learns(subjects: int) -> None:
    predicted = labelled(900, subjects)
    scores = gender_scores(predicted, None)
    label, prediction, logit = predicted.label, predicted.prediction, predicted.logit
    assert scores.images == len(predicted)
    assert scores.accuracy.value == pytest.approx(reference.accuracy_score(label, prediction))
    assert scores.balanced_accuracy.value == pytest.approx(reference.balanced_accuracy_score(label, prediction))
    assert scores.roc_auc.value == pytest.approx(reference.roc_auc_score(label, logit), abs=1e-12)
    assert [list(row) for row in scores.confusion] == reference.confusion_matrix(label, prediction).tolist()
    columns = zip(*reference.precision_recall_fscore_support(label, prediction), strict=True)
    for of_class, (precision, recall, f1, images) in zip(scores.classes, columns, strict=True):
        found = [of_class.precision.value, of_class.recall.value, of_class.f1.value, of_class.images]
        assert found == pytest.approx([precision, recall, f1, images])
    assert scores.calibration.log_loss == pytest.approx(reference.log_loss(label, predicted.probability))
    men, women = logit[label == 1].astype(float), logit[label == 0].astype(float)
    distance = (men.mean() - women.mean()) / math.sqrt((men.var() + women.var()) / 2)
    assert scores.d_prime.value == pytest.approx(distance)
    errors = reference.mean_absolute_error(label, predicted.probability)
    assert scores.probability_mae.value == pytest.approx(errors)
    assert scores.probability_mae.low < errors < scores.probability_mae.high
    for score in (scores.accuracy, scores.balanced_accuracy, scores.roc_auc, scores.d_prime, scores.classes[0].f1):
        assert score.low < score.value < score.high
    assert scores.accuracy.method == ("bootstrap" if subjects else "wilson")


@pytest.mark.parametrize(
    ("women", "men", "correct_women", "correct_men", "verdict"),
    [
        (40, 160, 0, 160, "not distinguishable from always predicting male with 200 images"),
        (40, 160, 20, 150, "not distinguishable from always predicting male with 200 images"),
        (40, 160, 35, 155, "better than always predicting male"),
        (40, 160, 35, 60, "worse than always predicting male"),
        (160, 40, 60, 35, "worse than always predicting female"),
    ],
)
@pytest.mark.parametrize("subjects", [False, True])
def test_the_majority_class_is_the_baseline(
    women: int, men: int, correct_women: int, correct_men: int, verdict: str, subjects: bool
) -> None:
    label = np.repeat([0, 1], [women, men])
    male = np.concatenate([np.arange(women) >= correct_women, np.arange(men) < correct_men])
    predicted = replace(
        labelled(300).rows(np.arange(women + men)), label=label, logit=(2 * male - 1).astype(np.float32)
    )
    if subjects:
        predicted = replace(predicted, subject=np.array([f"s{n // 2}" for n in range(women + men)], dtype=object))
    scores = gender_scores(predicted, None)
    baseline = scores.baseline
    assert baseline
    assert (baseline.name, baseline.accuracy) == (CLASSES[int(men > women)], max(women, men) / (women + men))
    assert baseline.difference.value == pytest.approx(scores.accuracy.value - baseline.accuracy)
    assert against_baseline(scores) == verdict
    alone = gender_scores(predicted.rows(label == 1), None)
    assert (alone.baseline, against_baseline(alone)) == (None, "")


def test_the_roc_curve_is_scikit_learns() -> None:
    predicted = labelled(900)
    points = gender_scores(predicted, None).roc
    false, true, thresholds = reference.roc_curve(predicted.label, predicted.logit, drop_intermediate=False)
    places = np.searchsorted(-thresholds, [-point.threshold for point in points[1:]])
    assert [point.threshold for point in points[1:]] == thresholds[places].tolist()
    assert [point.false_positive for point in points] == pytest.approx([0, *false[places]])
    assert [point.true_positive for point in points] == pytest.approx([0, *true[places]])
    assert math.isnan(points[0].threshold)
    curve = ([point.false_positive for point in points], [point.true_positive for point in points])
    assert reference.auc(*curve) == pytest.approx(reference.roc_auc_score(predicted.label, predicted.logit), abs=1e-12)


def test_a_long_roc_curve_is_thinned() -> None:
    draw = np.random.default_rng(1)
    label = draw.integers(0, 2, 20_000)
    logit = (label + draw.normal(size=len(label))).astype(np.float32)
    nothing = np.full(len(label), "", dtype=object)
    years = np.full(len(label), np.nan)
    predicted = Predictions(
        key=nothing,
        shard=nothing,
        subject=nothing,
        group=nothing,
        age=years,
        label=label,
        logit=logit,
        age_prediction=years.astype(np.float32),
    )
    scores = gender_scores(predicted, None)
    assert len(scores.roc) == 500
    ends = [(scores.roc[place].false_positive, scores.roc[place].true_positive) for place in (0, -1)]
    assert ends == [(0, 0), (1, 1)]
    points = ([point.false_positive for point in scores.roc], [point.true_positive for point in scores.roc])
    assert reference.auc(*points) == pytest.approx(scores.roc_auc.value, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_equal_error_is_where_both_errors_are_nearest(seed: int) -> None:
    predicted = labelled(400, seed=seed)
    equal = gender_scores(predicted, None).equal_error
    assert equal
    label, logit = predicted.label, predicted.logit
    edges = np.unique(logit).astype(float)
    rates = []
    for threshold in [edges[0] - 1, *((edges[1:] + edges[:-1]) / 2), edges[-1] + 1]:
        male = logit > threshold
        rates.append((np.mean(male[label == 0]), np.mean(~male[label == 1])))
    nearest = min(abs(false - miss) for false, miss in rates)
    male = logit > equal.threshold
    false, miss = np.mean(male[label == 0]), np.mean(~male[label == 1])
    assert abs(false - miss) == pytest.approx(nearest)
    assert equal.rate == pytest.approx((false + miss) / 2)
    assert equal.accuracy == np.mean(male == (label == 1))
    assert equal.probability == pytest.approx(expit(equal.threshold))


@pytest.mark.parametrize("logits", [[0.5] * 4, [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
def test_scores_that_say_all_or_nothing(logits: list[float]) -> None:
    label = np.array([0, 0, 1, 1])
    predicted = replace(labelled(100).rows(np.arange(4)), label=label, logit=np.array(logits, dtype=np.float32))
    scores = gender_scores(predicted, None)
    assert scores.roc_auc.value == reference.roc_auc_score(label, logits)
    assert scores.equal_error
    assert scores.equal_error.rate == {0.5: 0.5, 1.0: 0.0, 4.0: 1.0}[logits[0]]
    assert math.isnan(scores.d_prime.value) == (logits[0] == 0.5)


def test_the_reliability_curve_is_scikit_learns() -> None:
    predicted = labelled(900)
    found = calibration(predicted.logit, predicted.label == 1)
    male, probability = calibration_curve(predicted.label, predicted.probability, n_bins=15)
    bins = [part for part in found.bins if part.images]
    assert [part.male for part in bins] == pytest.approx(male.tolist())
    assert [part.probability for part in bins] == pytest.approx(probability.tolist())
    assert sum(part.images for part in bins) == len(predicted)
    weights = [part.images / len(predicted) for part in bins]
    assert found.ece == pytest.approx(np.dot(weights, np.abs(male - probability)))


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_a_temperature_is_what_scipy_finds(scale: float) -> None:
    predicted = labelled(900)
    logit, male = scale * predicted.logit, predicted.label == 1

    def loss(logarithm: float) -> float:
        return float(reference.log_loss(predicted.label, expit(logit / np.exp(logarithm))))

    found = fit_temperature(logit, male)
    best = minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9})
    assert found
    assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    assert loss(np.log(found)) <= best.fun + 1e-12
    assert calibration(logit / found, male).log_loss <= calibration(logit, male).log_loss


def test_no_temperature_is_best_where_all_or_none_are_right() -> None:
    predicted = labelled(300)
    right = np.abs(predicted.logit) + 1
    sign = np.where(predicted.label == 1, 1, -1)
    assert fit_temperature(right * sign, predicted.label == 1) is None
    assert fit_temperature(-right * sign, predicted.label == 1) is None
    assert fit_temperature(right[:0], predicted.label[:0] == 1) is None


def test_scores_of_age() -> None:
    predicted = predictions(500)
    predicted = predicted.rows(predicted.age_known)
    scores = age_scores(predicted)
    errors = np.abs(predicted.age_prediction - predicted.age)
    assert scores.images == len(predicted)
    assert scores.mae.value == pytest.approx(reference.mean_absolute_error(predicted.age, predicted.age_prediction))
    assert scores.mean_error.value == pytest.approx(np.mean(predicted.age_prediction - predicted.age))
    assert scores.cumulative == tuple(np.mean(errors <= year) for year in range(21))
    assert scores.mae.low < scores.mae.value < scores.mae.high
    of_torch = {"l1": F.l1_loss, "mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
    years, labels = (torch.tensor(values, dtype=torch.float64) for values in (predicted.age_prediction, predicted.age))
    for kind, loss in of_torch.items():
        assert age_loss(predicted, kind) == pytest.approx(float(loss(years, labels)))
    assert math.isnan(age_loss(predicted, "expectation"))


def test_columns_that_tables_are_made_by() -> None:
    predicted = replace(labelled(5), age=np.array([4.0, 19.5, 20, 101, np.nan]), label=np.array([0, 1, 1, 0, 1]))
    predicted = replace(predicted, group=np.array(["a", "", "b", "a", "b"], dtype=object))
    texts = {
        name: [("unknown", *column.values)[code + 1] for code in column.codes]
        for name, column in columns_of(predicted).items()
    }
    assert texts == {
        "gender": ["female", "male", "male", "female", "male"],
        "group": ["a", "unknown", "b", "a", "b"],
        "age decade": ["0-9", "10-19", "20-29", "100-109", "unknown"],
        "gender x group": ["female x a", "unknown", "male x b", "female x a", "male x b"],
    }
    assert columns_of(predicted)["age decade"].values == ("0-9", "10-19", "20-29", "100-109")


def test_predictions_are_written_and_read_whole(tmp_path: Path) -> None:
    predicted = predictions(60, subjects=7)
    predicted = replace(predicted, more={"glasses": np.array(["yes", "", "nö"] * 20, dtype=object)})
    write_predictions(tmp_path, predicted)
    again = read_predictions(tmp_path)
    for name in ("key", "shard", "subject", "group", "age", "label", "logit", "age_prediction"):
        np.testing.assert_array_equal(getattr(again, name), getattr(predicted, name), strict=True)
    assert again.more["glasses"].tolist() == predicted.more["glasses"].tolist()
    assert len(mistakes(again)) == np.sum((again.label >= 0) & again.decoded & (again.label != (again.logit > 0)))


def test_damaged_results_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluation.json in .*: name an evaluation such as"):
        read_evaluation(tmp_path)
    for content, message in (
        ("{", "is damaged"),
        ("[]", f"is not of format {results.FORMAT}: remove it and evaluate again"),
        (json.dumps({"format": results.FORMAT}), "is damaged .*: remove it and evaluate again"),
    ):
        (tmp_path / results.FILE).write_text(content)
        with pytest.raises(UserError, match=message):
            read_evaluation(tmp_path)
    with pytest.raises(UserError, match=r"no predictions.parquet in .*: evaluate again"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"predictions.parquet is damaged \(.*\): evaluate again"):
        read_predictions(tmp_path)


def test_images_of_groups_are_counted_below_each_other() -> None:
    score = results.Score(value=0.5, low=math.nan, high=math.nan, method="wilson")
    groups = [
        results.Group(value=name, images=images, subjects=0, score=score, small=True)
        for name, images in (("Asian", 1), ("other", 1_200))
    ]
    table = results.GroupTable(column="group", measure="accuracy", groups=tuple(groups), unknown=1, gap=None)
    first, second, unknown = (line.partition("50.00%")[0] for line in table_lines(table)[1:])
    assert (first, second) == ("  Asian       1 image   ", "  other   1,200 images  ")
    assert unknown == "  unknown       1 image"


def test_numbers_are_written_and_read_whole(tmp_path: Path) -> None:
    predicted = labelled(300, subjects=20)
    scores = gender_scores(predicted, None)
    found = scores.calibration
    temperature = results.Temperature(value=1.5, fitted_on="val", images=9, calibration=found)
    score = results.Score(value=0.25, low=math.nan, high=math.nan, method="wilson")
    group = results.Group(value="a", images=3, subjects=0, score=score, small=True)
    gap = results.Gap(best="a", worst="b", score=score, excludes_zero=False)
    table = results.GroupTable(column="group", measure="accuracy", groups=(group,), unknown=2, gap=gap)
    evaluation = Evaluation(
        **evaluation_facts(),
        gender=replace(scores, temperature=temperature),
        age=None,
        losses={"gender": 0.25, "age": math.nan},
        tables=(table,),
    )
    evaluation.write(tmp_path)
    assert repr(read_evaluation(tmp_path)) == repr(evaluation)  # nan is not equal to itself, its text is
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
