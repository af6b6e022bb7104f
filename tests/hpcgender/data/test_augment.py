from __future__ import annotations

import numpy as np
import pytest

from hpcgender.data.augment import PRESETS, Augmentation, Draws, centred, draw
from hpcgender.data.draws import uniform

SAMPLES = np.arange(20_000)


def rows(draws: Draws) -> np.ndarray:
    return np.column_stack([draws.size, draws.corner, draws.mirror, draws.colour])


def test_a_sample_is_varied_alike_whatever_batch_it_is_in() -> None:
    whole = rows(draw(PRESETS["light"], 3, 5, SAMPLES))
    chosen = np.array([17, 4, 11_111])
    assert np.array_equal(rows(draw(PRESETS["light"], 3, 5, chosen)), whole[chosen])


@pytest.mark.parametrize("other", [(4, 5), (3, 6)])
def test_seeds_and_epochs_vary_it_differently(other: tuple[int, int]) -> None:
    first, second = (draw(PRESETS["light"], seed, epoch, SAMPLES) for seed, epoch in ((3, 5), other))
    assert not np.isin(first.corner[:, 0], second.corner[:, 0]).mean() > 0.01
    assert abs(np.mean(first.mirror == second.mirror) - 0.5) < 0.02


def test_draws_are_uniform_and_independent() -> None:
    purposes = ("area", "top", "left", "flip")
    draws = np.array([uniform(0, epoch, purpose, SAMPLES) for purpose in purposes for epoch in (0, 1)])
    assert draws.min() >= 0
    assert draws.max() < 1
    for row in draws:
        counts, _ = np.histogram(row, 20, (0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-squared, 19 degrees of freedom: p < 1e-5
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert abs(correlations).max() < 5 / len(SAMPLES) ** 0.5


def test_ranges_are_kept() -> None:
    a = Augmentation(crop_area=0.5, crop_ratio=1.2, flip=0.3, brightness=0.4, hue=10.0)
    draws = draw(a, 0, 0, SAMPLES)
    area = draws.size.prod(1)
    ratio = draws.size[:, 1] / draws.size[:, 0]
    inside = draws.size.max(1) < 1
    assert area.max() <= 1
    assert area[inside].min() >= 0.499
    assert 1 / 1.21 <= ratio.min() < 0.85
    assert 1.15 < ratio.max() <= 1.21
    assert abs(draws.mirror.mean() - 0.3) < 0.02
    assert 0.6 <= draws.colour[:, 0].min() < 0.61
    assert 1.39 < draws.colour[:, 0].max() <= 1.4
    assert (draws.colour[:, 1:3] == 1).all()
    assert abs(draws.colour[:, 3]).max() <= 10


def test_no_augmentation_is_the_whole_image() -> None:
    whole = rows(draw(PRESETS["none"], 0, 0, SAMPLES[:5]))
    centre = rows(centred(5))
    assert np.array_equal(np.delete(whole, [2, 3], 1), np.delete(centre, [2, 3], 1))  # the corner of it does not matter
