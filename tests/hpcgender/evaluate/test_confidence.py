"""How often predictions of a confidence were right, against counting by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpcgender.evaluate import decision
from hpcgender.evaluate.confidence import EDGES, bin_of, confidence_bins
from hpcgender.evaluate.predictions import sigmoid
from hpcgender.evaluate.resample import wilson
from tests.hpcgender.evaluate.examples import labelled, predictions


@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0])
def test_bins_count_every_labelled_image_once(temperature: float) -> None:
    found = predictions(2000)
    known = found.rows(found.gender_known)
    bins = confidence_bins(found, temperature)
    assert [(one.low, one.high) for one in bins] == list(pairwise(EDGES))
    assert sum(one.images for one in bins) == len(known)
    assert sum(one.right for one in bins) == np.count_nonzero(known.prediction == known.label)
    for logit, right in zip(known.logit[:50].tolist(), (known.prediction == known.label)[:50].tolist(), strict=True):
        male = float(sigmoid(np.array([logit / temperature]))[0])
        one = bin_of(max(male, 1 - male), bins)
        assert one.low <= max(male, 1 - male) <= one.high
        assert one.right >= int(right)


def test_bins_are_of_what_is_predicted_at_the_threshold() -> None:
    found = labelled(2000)
    bins = confidence_bins(found, 2.0, threshold=1.5)
    male = found.logit > 1.5
    probability = sigmoid(found.logit / 2.0)
    confidence = np.where(male, probability, 1 - probability)
    assert sum(one.images for one in bins) == len(found)
    assert bins[0].images == np.count_nonzero(confidence < 0.5) > 0  # women at more than 0.5 of male
    for one in bins[:-1]:
        inside = (confidence >= one.low) & (confidence < one.high)
        assert (one.images, one.right) == (inside.sum(), (inside & (male == found.label)).sum())


def test_without_subjects_intervals_are_wilsons_and_with_them_wider() -> None:
    alone = confidence_bins(labelled(2000), 1.0)
    for one in alone:
        if one.images:
            assert (one.score.low, one.score.high) == pytest.approx(wilson(one.right, one.images))
            assert one.score.value == one.right / one.images
    together = next(one for one in confidence_bins(labelled(2000, subjects=40), 1.0) if one.low == 0.6)
    low, high = wilson(together.right, together.images)
    assert together.score.method == "bootstrap"
    assert together.score.high - together.score.low > high - low


def test_a_bin_without_images_has_no_score() -> None:
    found = labelled(300)
    sure = confidence_bins(found, 0.001)
    assert sure[-1].images + sure[1].images == len(found)  # the others are ties, log-odds of zero
    assert math.isnan(sure[4].score.value)
    assert bin_of(1.0, sure) is sure[-1]
    assert bin_of(0.5, sure) is sure[1]
    nothing = confidence_bins(found.rows(np.zeros(len(found), bool)), 1.0)
    assert [one.images for one in nothing] == [0] * (len(EDGES) - 1)


def test_a_threshold_is_chosen_on_val_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(directory: Path) -> Any:
        split = directory.name
        temperature = SimpleNamespace(value=2.0, fitted_on="train", images=1200) if split == "test" else None
        return SimpleNamespace(
            checkpoint=SimpleNamespace(digest="d"),
            options=SimpleNamespace(flip=False),
            run=SimpleNamespace(began=1.0 if split == "val" else 2.0),
            data=SimpleNamespace(path="/data/faces", split=split),
            gender=SimpleNamespace(
                temperature=temperature, equal_error=SimpleNamespace(threshold=0.5 if split == "val" else 0.25)
            ),
        )

    for name in ("val", "test"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "evaluation.json").touch()
    monkeypatch.setattr(decision, "read_evaluation", held)
    best = tmp_path / "checkpoints" / "best.pt"
    found = decision.DecisionConfig(threshold="equal-error").decision(best, "d", None)  # that on test is newer
    assert (found.threshold, found.temperature) == (0.5, 2.0)
    assert found.calibrated_by == "1,200 images of train of faces, as fitted in test"
    assert found.words.endswith("; male is predicted above 0.5622, equal-error on val of faces, by val")
    on_test = decision.DecisionConfig(threshold="equal-error", evaluation="test").decision(best, "d", None)
    assert on_test.threshold == 0.25
    assert on_test.threshold_from == (
        "equal-error on test of faces, by test (WARNING: scores on test are too good with it; choose it on val)"
    )
