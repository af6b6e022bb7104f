"""How often predictions of a confidence were right, against counting by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

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
    assert sure[-1].images + sure[0].images == len(found)  # the others are ties, log-odds of zero
    assert math.isnan(sure[3].score.value)
    assert bin_of(1.0, sure) is sure[-1]
    assert bin_of(0.5, sure) is sure[0]
    nothing = confidence_bins(found.rows(np.zeros(len(found), bool)), 1.0)
    assert [one.images for one in nothing] == [0] * (len(EDGES) - 1)
