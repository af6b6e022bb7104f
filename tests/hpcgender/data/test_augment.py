from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from hpcgender.data.augment import Draws, centred, draw
from hpcgender.data.augmentation import PRESETS, Augmentation, read_augmentation
from hpcgender.data.counter_rng import uniform
from shard_tools.base.errors import UserError

SAMPLES = np.arange(20_000)
ALL = Augmentation(
    crop=0.6,
    crop_area=0.5,
    crop_ratio=1.2,
    flip=0.3,
    rotation=0.4,
    rotation_degrees=15,
    colour=0.7,
    brightness=0.4,
    hue=10,
    grayscale=0.1,
    blur=0.2,
    blur_sigma=(0.5, 1.5),
    erase=0.25,
    erase_area=(0.1, 0.2),
    erase_ratio=2,
)


def rows(draws: Draws) -> np.ndarray:
    return np.column_stack(astuple(draws))


def test_a_sample_is_augmented_alike_in_every_batch() -> None:
    for augmentation in (*PRESETS.values(), ALL):
        whole = draw(augmentation, 3, 5, SAMPLES)
        chosen = [17, 4, 11_111]
        assert np.array_equal(rows(draw(augmentation, 3, 5, np.array(chosen))), rows(whole)[chosen])
        assert np.array_equal(rows(whole.rows(chosen)), rows(whole)[chosen])


@pytest.mark.parametrize("other", [(4, 5), (3, 6)])
def test_seeds_and_epochs_augment_it_differently(other: tuple[int, int]) -> None:
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


def test_augmentations_are_drawn_independently() -> None:
    draws = draw(ALL, 0, 0, SAMPLES)
    hit = [draws.size[:, 0] < 1, draws.mirror, draws.angle != 0, draws.colour[:, 0] != 1, draws.colour[:, 2] == 0]
    hit += [draws.sigma > 0, draws.erase[:, 2] > 0]
    correlations = np.corrcoef(np.array(hit, dtype=float)) - np.eye(len(hit))
    assert abs(correlations).max() < 5 / len(SAMPLES) ** 0.5


def test_ranges_and_probabilities_are_kept() -> None:
    draws = draw(ALL, 0, 0, SAMPLES)
    cropped = (draws.size != 1).any(1)
    assert abs(cropped.mean() - 0.6) < 0.02
    assert (draws.corner[~cropped] == 0.5).all()
    area = draws.size.prod(1)
    ratio = draws.size[:, 1] / draws.size[:, 0]
    inside = draws.size.max(1) < 1
    assert area.max() <= 1
    assert area[inside].min() >= 0.499
    assert 1 / 1.21 <= ratio.min() < 0.85
    assert 1.15 < ratio.max() <= 1.21
    assert abs(draws.mirror.mean() - 0.3) < 0.02

    assert abs((draws.angle != 0).mean() - 0.4) < 0.02
    assert 14.9 < abs(draws.angle).max() <= 15

    jittered = draws.colour[:, 0] != 1
    assert abs(jittered.mean() - 0.7) < 0.02
    assert (draws.colour[~jittered, 3] == 0).all()
    assert 0.6 <= draws.colour[:, 0].min() < 0.61
    assert 1.39 < draws.colour[:, 0].max() <= 1.4
    assert (draws.colour[:, 1] == 1).all()
    assert set(draws.colour[:, 2].tolist()) == {0, 1}
    assert abs((draws.colour[:, 2] == 0).mean() - 0.1) < 0.02
    assert abs(draws.colour[:, 3]).max() <= 10

    blurred = draws.sigma[draws.sigma > 0]
    assert abs(len(blurred) / len(SAMPLES) - 0.2) < 0.02
    assert 0.5 <= blurred.min() < 0.51
    assert 1.49 < blurred.max() <= 1.5

    erased = draws.erase[draws.erase[:, 2] > 0]
    assert abs(len(erased) / len(SAMPLES) - 0.25) < 0.02
    area, ratio = erased[:, 2:].prod(1), erased[:, 3] / erased[:, 2]
    assert 0.0999 <= area.min() < 0.101
    assert 0.199 < area.max() <= 0.2001
    assert 0.49 < ratio.min() < 0.52
    assert 1.9 < ratio.max() < 2.01


def test_erased_rectangles_lie_within_the_image() -> None:
    draws = draw(Augmentation(erase=1, erase_area=(0.001, 1), erase_ratio=10), 0, 0, SAMPLES)
    for size in (1, 7, 112):
        top, left, height, width = draws.erased(size).T
        assert min(top.min(), left.min()) >= 0
        assert max((top + height).max(), (left + width).max()) <= size
        assert abs((height * width).mean() / size**2 - (draws.erase[:, 2:].prod(1)).mean()) < 0.6 / size
    assert not draw(PRESETS["none"], 0, 0, SAMPLES).erased(112).any()


def test_one_augmentation_does_not_change_the_draws_of_another() -> None:
    light = draw(PRESETS["light"], 1, 2, SAMPLES)
    more = draw(replace(PRESETS["light"], blur=0.5, erase=0.5, rotation=0.5, grayscale=0.1), 1, 2, SAMPLES)
    for field in ("size", "corner", "mirror"):
        assert np.array_equal(getattr(light, field), getattr(more, field))
    assert np.array_equal(light.colour[:, [0, 1, 3]], more.colour[:, [0, 1, 3]])


def test_no_augmentation_is_evaluation() -> None:
    assert np.array_equal(rows(draw(PRESETS["none"], 0, 0, SAMPLES[:5])), rows(centred(5)))


def test_a_preset_is_read_by_its_name() -> None:
    for name in ("none", "light", "moderate", "strong", "degraded"):
        assert read_augmentation(name) == PRESETS[name]
    with pytest.raises(UserError, match=r"unknown augmentation 'ligth': did you mean light\?"):
        read_augmentation("ligth")


def test_a_file_changes_some_of_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "light"\nblur = 1\nblur_sigma = [1, 2.5]\nhue = 0.0\n')
    assert read_augmentation(str(file)) == replace(PRESETS["light"], blur=1.0, blur_sigma=(1.0, 2.5), hue=0.0)
    file.write_text("erase = 0.2\n")
    assert read_augmentation(str(file)) == Augmentation(erase=0.2)
    file.write_text("")
    assert read_augmentation(str(file)) == PRESETS["none"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blur = 1.5", "blur is 1.5: give a probability from 0 to 1"),
        ("flip = -0.1", "flip is -0.1: give a probability from 0 to 1"),
        ("hue = nan", "hue is nan: give a number from 0 to 180"),
        ("rotation_degrees = inf", "rotation_degrees is inf: give a number from 0 to 180"),
        ("blur_sigma = [-1, 2]", r"blur_sigma is \[-1, 2\]: give numbers from 0.1 to 50"),
        ("blur_sigma = [3, 2]", r"blur_sigma is \[3, 2\]: give the least first"),
        ("blur_sigma = 2", r"mine.toml, line 1: blur_sigma must be a list in \[ \] of 2, each a number, not 2"),
        ("erase_area = [0.1, true]", r"mine.toml, line 1: erase_area\[1\] must be a number, not true"),
        ("flip = true", "mine.toml, line 1: flip must be a number, not true"),
        ('flip = "0.5"', "mine.toml, line 1: flip must be a number, not '0.5'"),
        ("fliip = 0.5", r"mine.toml, line 1: fliip is unknown: did you mean flip\?"),
        ('preset = "lihgt"', "unknown preset in .*mine.toml 'lihgt': did you mean light?"),
        ("preset = []", r"mine.toml, line 1: preset must be text in quotes, not \[\]"),
        ("flip = ", "mine.toml: Invalid value"),
    ],
)
def test_what_a_file_gets_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_augmentation(str(file))
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.toml: No such file or directory"):
        read_augmentation(str(tmp_path / "none.toml"))
