from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcgender.data.order import LANES
from hpcgender.train.mixup import Mixing, draw_mixing, mix, partner_stride, symmetric_beta

WORLDS = [world for world in range(1, 65) if LANES % world == 0]


def whole(batch_size: int, world_size: int, step: int) -> tuple[list[int], list[float]]:
    """The partners' places in the global batch and the weights, in the global batch's order."""
    partners, weights = np.zeros(batch_size, dtype=np.int64), np.zeros(batch_size, dtype=np.float32)
    for rank in range(world_size):
        mixing = draw_mixing(0.4, 5, 3, step, batch_size=batch_size, rank=rank, world_size=world_size)
        partners[rank::world_size] = mixing.partners * world_size + rank
        weights[rank::world_size] = mixing.weights
    return partners.tolist(), weights.tolist()


@pytest.mark.parametrize("batch_size", [16, 48, 60, 64, 100, 240, 256, 512, 960, 1024])
def test_a_global_batch_is_mixed_the_same_on_any_number_of_ranks(batch_size: int) -> None:
    worlds = [world for world in WORLDS if batch_size % world == 0]
    stride = partner_stride(batch_size, 1)
    fitting = [world for world in worlds if stride % world == 0]
    # Not among them: so many ranks that they share all factors of two of a batch that the lanes are a multiple of.
    assert all(2 * batch_size % (world * 2) == 0 and LANES % batch_size == 0 for world in set(worlds) - set(fitting))
    assert fitting[:3] == worlds[:3]
    for step in (0, 1, 77):
        expected = whole(batch_size, 1, step)
        for world in fitting:
            assert whole(batch_size, world, step) == expected
    for world in worlds:
        partners, weights = whole(batch_size, world, 0)
        assert weights == whole(batch_size, 1, 0)[1]
        assert sorted(partners) == list(range(batch_size))  # each is somebody's partner once
        if batch_size // world > 1:
            assert all(place != partner for place, partner in enumerate(partners))
        assert all((place - partner) % world == 0 for place, partner in enumerate(partners))


def test_steps_epochs_and_seeds_mix_differently() -> None:
    drawn = [
        draw_mixing(0.4, seed, epoch, step, batch_size=256)
        for seed, epoch, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert len({tuple(mixing.partners) for mixing in drawn}) == 4
    assert len({tuple(mixing.weights) for mixing in drawn}) == 4


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2, 0.5, 1.0])
def test_weights_are_distributed_as_beta(alpha: float) -> None:
    drawn = np.sort(symmetric_beta(alpha, 0, 0, np.arange(20000)).astype(np.float64))
    assert 0 <= drawn[0] <= drawn[-1] <= 1
    theirs = np.sort(np.random.default_rng(0).beta(alpha, alpha, 20000))
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.005)
    assert np.abs(drawn - theirs).mean() < 0.01


def test_draws_do_not_change_with_the_version() -> None:
    mixing = draw_mixing(0.2, 1, 2, 3, batch_size=5)
    assert mixing.partners.tolist() == [4, 0, 1, 2, 3]
    assert mixing.weights.tolist() == pytest.approx([0.00029412706, 0.47642598, 0.91007942, 0.30946016, 0.51618659])


def hand_made() -> tuple[Mixing, torch.Tensor]:
    mixing = Mixing(np.array([1, 2, 3, 0]), np.array([0.25, 1.0, 0.5, 0.75], dtype=np.float32))
    return mixing, torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2).contiguous()


def test_images_labels_and_ages_are_mixed_alike() -> None:
    mixing, images = hand_made()
    mixed, gender, age = mix(mixing, images, torch.tensor([0, 1, 1, 0]), torch.tensor([20.0, 40.0, 60.0, 80.0]))
    assert mixed[:, 0, 0, 0].tolist() == [0.75, 1.0, 2.5, 2.25]
    assert gender.tolist() == [[0.25, 0.75], [0, 1], [0.5, 0.5], [1, 0]]
    assert age is not None
    assert age.tolist() == [35, 40, 70, 65]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_unknown_labels_are_not_mixed() -> None:
    mixing, images = hand_made()
    mixed, gender, age = mix(mixing, images, torch.tensor([0, -1, 1, 0]))
    assert mixed[:, 0, 0, 0].tolist() == [0, 1, 2.5, 2.25]
    assert gender.tolist() == [[1, 0], [0, 0], [0.5, 0.5], [1, 0]]
    assert age is None
    mixed, gender, age = mix(mixing, images, torch.tensor([0, -1, 1, 0]), torch.tensor([20.0, 40.0, -1.0, 80.0]))
    assert mixed[:, 0, 0, 0].tolist() == [0, 1, 2, 2.25]
    assert gender.tolist() == [[1, 0], [0, 0], [0, 1], [1, 0]]
    assert age is not None
    assert age.tolist() == [20, 40, -1, 65]


def test_a_mixed_batch_has_the_same_bits_on_two_ranks() -> None:
    images, gender = torch.randn(12, 3, 5, 5), torch.arange(12) % 2
    expected, targets, _ = mix(draw_mixing(0.4, 0, 0, 9, batch_size=12), images, gender)
    for rank in (0, 1):
        mixing = draw_mixing(0.4, 0, 0, 9, batch_size=12, rank=rank, world_size=2)
        mixed, of_rank, _ = mix(mixing, images[rank::2], gender[rank::2])
        assert torch.equal(mixed, expected[rank::2])
        assert torch.equal(of_rank, targets[rank::2])


def test_a_rank_of_one_image_keeps_it() -> None:
    mixing = draw_mixing(0.4, 0, 0, 0, batch_size=2, rank=1, world_size=2)
    images = torch.randn(1, 3, 5, 5)
    mixed, gender, _ = mix(mixing, images, torch.tensor([1]))
    assert torch.equal(mixed, images)
    assert gender.tolist() == [[0, 1]]
