from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgender.data.order import (
    LANES,
    Order,
    Samples,
    block_positions,
    check_world_size,
    chunk_length,
    rank_positions,
    steps_per_epoch,
)
from hpcgender.data.sampling import class_targets, draw_samples
from shard_tools.base.errors import UserError

sizes = st.integers(1, 3 * LANES) | st.integers(1, 30_000)
chunks = st.integers(1, 60)
seeds = st.integers(0, 2**40)
worlds = st.sampled_from([w for w in range(1, LANES + 1) if LANES % w == 0])


def whole(order: Order) -> Samples:
    return order.at(np.arange(len(order))).samples


@given(sizes, chunks, seeds, st.integers(0, 5))
def test_an_epoch_has_every_sample_once(samples: int, chunk: int, seed: int, epoch: int) -> None:
    order = whole(Order(samples, chunk, seed, epoch))
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, whole(Order(samples, chunk, seed, epoch)))


@given(sizes, chunks)
def test_evaluation_has_every_sample_once_from_front_to_back(samples: int, chunk: int) -> None:
    assert np.array_equal(whole(Order(samples, chunk, 0, 0, shuffled=False, lanes=1)), np.arange(samples))


@given(st.integers(1, 6000), worlds.filter(lambda world: world <= 64), st.integers(1, 100))
def test_evaluation_has_the_same_blocks_for_every_world_size(samples: int, world: int, per_rank: int) -> None:
    order = Order(samples, per_rank, 0, 0, shuffled=False, lanes=1)
    blocks = []
    for step in range(steps_per_epoch(samples, world * per_rank, "keep")):
        for rank in range(world):
            places = order.at(block_positions(step, samples, world * per_rank, rank, world))
            if len(places.samples):
                blocks.append(places.samples)
                assert len(np.unique(places.pieces)) == 1
                assert np.flatnonzero(places.last).tolist() == [len(places.samples) - 1]
    for number, block in enumerate(blocks):
        assert np.array_equal(block, np.arange(number * per_rank, min((number + 1) * per_rank, samples)))
    assert len(blocks) == -(-samples // per_rank)


@given(sizes, chunks, seeds)
def test_any_positions_can_be_asked_for(samples: int, chunk: int, seed: int) -> None:
    order = Order(samples, chunk, seed, 1)
    chosen = np.random.default_rng(seed).integers(0, samples, 50)
    assert np.array_equal(order.at(chosen).samples, whole(order)[chosen])


@given(sizes, chunks, worlds, st.integers(1, 8), st.sampled_from(["drop", "pad", "keep"]))
def test_every_world_size_sees_the_same_global_batches(
    samples: int, chunk: int, world: int, per_rank: int, last_batch: str
) -> None:
    order = Order(samples, chunk, 1, 1)
    batch = world * per_rank
    steps = steps_per_epoch(samples, batch, last_batch)
    for step in {0, steps // 2, steps - 1} & set(range(steps)):
        parts = [order.at(rank_positions(step, samples, batch, rank, world, last_batch)) for rank in range(world)]
        alone = order.at(rank_positions(step, samples, batch, 0, 1, last_batch))
        merged = np.empty_like(alone.samples)
        for rank, part in enumerate(parts):
            merged[rank::world] = part.samples
        assert np.array_equal(merged, alone.samples)
        assert last_batch == "keep" or {len(part.samples) for part in parts} == {per_rank}


@given(st.integers(1, 6000), chunks, worlds.filter(lambda world: world <= 64), st.integers(1, 4), st.booleans())
def test_the_ranks_together_have_every_sample_once_and_share_no_piece(
    samples: int, chunk: int, world: int, per_rank: int, shuffled: bool
) -> None:
    order = Order(samples, chunk, 3, 0, shuffled=shuffled)
    steps = range(steps_per_epoch(samples, world * per_rank, "keep"))
    seen, walked = [], []
    for rank in range(world):
        positions = [rank_positions(step, samples, world * per_rank, rank, world, "keep") for step in steps]
        places = order.at(np.concatenate(positions))
        seen.append(places.samples)
        walked.append(np.unique(places.pieces))
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(samples))
    assert np.array_equal(np.sort(np.concatenate(walked)), np.arange(len(order.first)))


@given(st.integers(1, 5000), chunks, st.integers(1, 500))
def test_padding_goes_on_at_the_beginning(samples: int, chunk: int, batch: int) -> None:
    order = Order(samples, chunk, 0, 0)
    steps = steps_per_epoch(samples, batch, "pad")
    places = order.at(np.concatenate([rank_positions(step, samples, batch, 0, 1, "pad") for step in range(steps)]))
    assert len(places.samples) == steps * batch < samples + batch
    assert np.array_equal(places.samples, np.resize(whole(order), steps * batch))
    assert np.array_equal(np.flatnonzero(places.pieces < 0), np.arange(samples, steps * batch))


@given(sizes, chunks, seeds)
def test_a_rank_holds_one_piece_of_a_lane_and_each_piece_ends_once(samples: int, chunk: int, seed: int) -> None:
    order = Order(samples, chunk, seed, 0)
    places = order.at(np.arange(samples))
    assert np.array_equal(np.sort(places.pieces[places.last]), np.arange(len(order.first)))
    for lane in (0, LANES // 2, LANES - 1):
        pieces = places.pieces[lane::LANES]
        assert np.all(np.diff(pieces) >= 0)
        for number in np.unique(pieces):
            (first,), (last,) = order.spans(np.array([number]))
            own = np.sort(places.samples[lane::LANES][pieces == number])
            assert np.array_equal(own, np.arange(first, last + 1))
            assert len(own) <= chunk


def test_epochs_and_seeds_differ() -> None:
    orders = [whole(Order(5000, 3, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert np.mean(a == b) < 0.01


def test_batches_mix_the_whole_split() -> None:
    order = whole(Order(100_000, 13, 0, 0))
    means = order[: 256 * 300].reshape(300, 256).mean(1) / 100_000
    assert abs(means - 0.5).max() < 5 * (1 / 12 / 256) ** 0.5


def test_the_order_is_the_same_on_every_machine() -> None:
    assert whole(Order(10, 1, 0, 0)).tolist() == [7, 2, 4, 9, 3, 0, 1, 5, 6, 8]
    longer = whole(Order(5000, 3, 0, 0)).astype("<i8").tobytes()
    assert hashlib.sha256(longer).hexdigest().startswith("acc3db634e040866")


@given(st.integers(1, 10**8), st.floats(500, 1e5), st.floats(1e6, 1e10))
def test_chunks_fill_the_window_and_lanes_begin_them_at_different_times(
    samples: int, sample_bytes: float, window: float
) -> None:
    chunk = chunk_length(samples, sample_bytes, window)
    assert chunk == 1 or chunk * sample_bytes * LANES <= window
    assert chunk == 1 or chunk <= samples / LANES / 4
    if chunk > 1:
        phases = np.bincount(np.arange(LANES) * (samples // LANES) % chunk, minlength=chunk)
        assert phases.max() - phases.min() <= 1


def test_the_default_window_reads_a_quarter_of_a_megabyte_of_ms1mv2_at_once() -> None:
    assert 0.2e6 < chunk_length(5_822_653, 7900, 256e6) * 7900 <= 256e6 / LANES


@pytest.mark.parametrize(
    ("world", "batch", "message"), [(7, 28, "one of 1, 2, 3, 4, 5, 6, 8"), (8, 12, "does not divide")]
)
def test_ranks_that_cannot_share_evenly_are_refused(world: int, batch: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_world_size(world, batch)


classes = st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=3000).filter(lambda c: 0 in c and 1 in c)


@given(classes, st.sampled_from(["undersample", "oversample"]), seeds, chunks)
def test_balanced_epochs(genders: list[int], sampling: str, seed: int, chunk: int) -> None:
    gender = np.array(genders, dtype=np.int8)
    counts = [genders.count(0), genders.count(1)]
    targets = class_targets(counts, sampling, ())  # type: ignore[arg-type]
    assert targets == [(min if sampling == "undersample" else max)(counts)] * 2
    drawn = draw_samples(gender, targets, seed, 0)
    order = whole(Order(len(gender), chunk, seed, 0, drawn=drawn))
    assert np.array_equal(np.sort(order), drawn)
    assert np.bincount(gender[order], minlength=2).tolist() == targets
    for value in (0, 1):
        times = np.bincount(order, minlength=len(gender))[gender == value]
        assert times.max() - times.min() <= 1


@given(classes, st.tuples(st.floats(0, 10), st.floats(0, 10)).filter(lambda w: sum(w) > 0.1))
def test_weights_keep_the_length_of_the_epoch(genders: list[int], weights: tuple[float, float]) -> None:
    counts = [genders.count(0), genders.count(1)]
    targets = class_targets(counts, "weights", weights)
    assert sum(targets) == sum(counts)
    share = counts[0] * weights[0] / (counts[0] * weights[0] + counts[1] * weights[1])
    assert abs(targets[0] - share * sum(counts)) <= 1


def test_every_image_of_the_larger_class_has_its_turn() -> None:
    gender = np.array([0] * 50 + [1] * 450, dtype=np.int8)
    epochs = [draw_samples(gender, [50, 50], 0, epoch) for epoch in range(100)]
    times = np.bincount(np.concatenate(epochs), minlength=500)
    assert (times[:50] == 100).all()
    assert times[50:].min() >= 1
    assert abs(times[50:].mean() - 100 / 9) < 1e-9
    assert times[50:].std() < 2 * (100 / 9) ** 0.5
    assert all(not np.array_equal(a, b) for a, b in pairwise(epochs))


@pytest.mark.parametrize(
    ("sampling", "weights", "counts", "message"),
    [
        ("oversample", (), [0, 5], "images of every class"),
        ("weights", (), [5, 5], "--sampling-weights with 2 numbers"),
        ("weights", (1.0, -1.0), [5, 5], "--sampling-weights with 2 numbers"),
        ("weights", (0.0, 0.0), [5, 5], "--sampling-weights with 2 numbers"),
    ],
)
def test_sampling_that_cannot_be_is_refused(
    sampling: str, weights: tuple[float, ...], counts: list[int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        class_targets(counts, sampling, weights)  # type: ignore[arg-type]
