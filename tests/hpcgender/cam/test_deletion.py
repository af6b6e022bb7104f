"""What the deletion check masks, and the numbers that it computes from the predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcgender.cam.deletion import cell_orders, cells_masked, deletion, draw_images, masked, seen_images


def test_hottest_cells_are_those_for_the_label_and_random_ones_are_the_images_own() -> None:
    maps = np.array([[[3, -1], [0, 2]], [[3, -1], [0, 2]]], dtype=np.float32)
    hottest, random = cell_orders(maps, np.array([1, 0]), np.array([7, 8]), seed=0)
    assert hottest.tolist() == [[0, 3, 2, 1], [1, 2, 3, 0]]
    assert [sorted(order) for order in random.tolist()] == [[0, 1, 2, 3]] * 2
    _, alone = cell_orders(maps[1:], np.array([0]), np.array([8]), seed=0)
    np.testing.assert_array_equal(alone[0], random[1])
    many = np.zeros((2000, 2, 2), dtype=np.float32)
    _, orders = cell_orders(many, np.zeros(2000, dtype=int), np.arange(2000), seed=0)
    np.testing.assert_allclose(np.bincount(orders[:, 0]) / 2000, 0.25, atol=0.04)
    assert not np.array_equal(orders, cell_orders(many, np.zeros(2000, dtype=int), np.arange(2000), seed=1)[1])


def test_masked_cells_get_the_mean_colour() -> None:
    images = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    seen = masked(images, np.array([[1, 0, 2, 3]]), 1, (2, 2))
    assert torch.equal(seen[0, :, :, :4], images[0, :, :, :4])  # 7 pixels over 2 cells: the first has 4
    assert torch.equal(seen[0, :, 4:, :], images[0, :, 4:, :])
    torch.testing.assert_close(seen[0, :, :4, 4:], images.mean((2, 3))[0, :, None, None].expand(3, 4, 3))
    assert len(list(seen_images(images, [np.arange(4)[None]] * 2, [1, 4], (2, 2)))) == 5


def test_each_fraction_masks_at_least_a_cell() -> None:
    assert cells_masked((0.01, 0.1, 0.5, 1.0), 16) == [1, 2, 8, 16]


def test_the_numbers_of_the_check() -> None:
    rows = np.array([[2, -1, 1], [1, 1, 0.5], [np.nan] * 3, [0, -2, -3]], dtype=np.float32)
    found = deletion(rows, np.array([1, 0, 1, 0]), (0.25,), 4, seed=3)
    assert found
    assert (found.images, found.unmasked.accuracy, found.unmasked.log_odds) == (3, 1.0, 1.0)  # 0 is called female
    (step,) = found.steps
    assert step.cells == 1
    assert [step.hottest.accuracy, step.random.accuracy] == pytest.approx([1 / 3, 2 / 3])
    gaps = np.array([2, -0.5, -1])
    assert step.gap == pytest.approx(gaps.mean())
    assert step.gap_standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(3))
    assert deletion(rows[2:3], np.array([1]), (0.25,), 4, seed=3) is None


def test_drawn_images_are_some_of_the_candidates() -> None:
    candidates = np.arange(0, 1000, 3)
    drawn = draw_images(candidates, 50, 0, "deletion")
    assert len(np.unique(drawn)) == 50
    assert np.isin(drawn, candidates).all()
    assert (np.diff(drawn) > 0).all()
    assert np.isin(drawn, draw_images(candidates, 80, 0, "deletion")).all()  # more are those and others
    np.testing.assert_array_equal(draw_images(candidates, 5000, 0, "deletion"), candidates)
