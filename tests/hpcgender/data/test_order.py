from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgender.data.order import CHUNK, LANES, check_world_size, rank_batch, shuffled, steps_per_epoch
from shard_tools.commands import UserError

sizes = st.integers(1, 3 * LANES) | st.integers(1, 300_000)
worlds = st.sampled_from([w for w in range(1, 129) if LANES % w == 0])


@given(sizes, st.integers(0, 2**40), st.integers(0, 5))
def test_an_epoch_has_every_sample_once(samples: int, seed: int, epoch: int) -> None:
    order = shuffled(samples, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, shuffled(samples, seed, epoch))


@given(sizes, worlds, st.integers(1, 8), st.booleans())
def test_every_world_size_sees_the_same_global_batches(samples: int, world: int, per_rank: int, drop: bool) -> None:
    order = shuffled(samples, 1, 1)
    batch = world * per_rank
    steps = steps_per_epoch(samples, batch, drop)
    for step in {0, steps // 2, steps - 1} & set(range(steps)):
        parts = [rank_batch(order, step, batch, rank, world) for rank in range(world)]
        whole = rank_batch(order, step, batch, 0, 1)
        merged = np.empty_like(whole)
        for rank, part in enumerate(parts):
            merged[rank::world] = part
        assert np.array_equal(merged, whole)
        if drop:
            assert {len(part) for part in parts} == {per_rank}


@given(st.integers(1, 3000), st.integers(1, 500))
def test_evaluation_steps_cover_everything(samples: int, batch: int) -> None:
    steps = steps_per_epoch(samples, batch, drop_last=False)
    parts = [rank_batch(np.arange(samples), step, batch, 0, 1) for step in range(steps)]
    assert np.array_equal(np.concatenate(parts), np.arange(samples))


def test_epochs_and_seeds_differ() -> None:
    orders = [shuffled(5000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert np.mean(a == b) < 0.01


def test_a_lane_reads_chunks_of_neighbours() -> None:
    samples = 20 * LANES * CHUNK
    lane = shuffled(samples, 0, 0)[::LANES]
    chunks = lane // CHUNK
    # A block may begin within a chunk, so it touches at most two, and each chunk is done before the walk goes on.
    for begin in range(0, len(lane), CHUNK):
        assert len(set(chunks[begin : begin + CHUNK])) <= 2


def test_batches_mix_the_whole_split() -> None:
    order = shuffled(100_000, 0, 0)
    means = order[: 256 * 300].reshape(300, 256).mean(1) / 100_000
    assert abs(means - 0.5).max() < 5 * (1 / 12 / 256) ** 0.5


def test_the_order_is_the_same_on_every_machine() -> None:
    assert shuffled(10, 0, 0).tolist() == [7, 2, 4, 9, 3, 0, 1, 5, 6, 8]


@pytest.mark.parametrize(
    ("world", "batch", "says"), [(7, 28, "one of 1, 2, 3, 4, 5, 6, 8"), (8, 12, "does not divide")]
)
def test_ranks_that_cannot_share_evenly_are_refused(world: int, batch: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_world_size(world, batch)
