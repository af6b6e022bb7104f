"""Several data sets in one stream of batches: in proportion to their weights, each image once before any again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgender.data.augment import Draws, draw, draw_each
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.mixture import GROUP, MixedOrder, PassesOf, Turns
from hpcgender.data.order import LANES, Order, Places, Samples, rank_positions
from hpcgender.data.packs import Place, identity, joined, manifests_in, names_of, places_of, read_packs
from shard_tools.base.errors import UserError
from tests.hpcgender.data.small_loaders import batches, same, training

parts = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 300)), min_size=2, max_size=3)


def order_of(
    sizes: list[int], weights: list[int], length: int, epoch: int, chunk: int = 3, seed: int = 5
) -> MixedOrder:
    """The order of an epoch of data sets of so many samples."""

    def make(size: int, number: int, lanes: Samples) -> Order:
        return Order(size, chunk, seed, number, lane_lengths=lanes)

    turns = Turns(weights, seed)
    first = np.cumsum([0, *sizes]).tolist()
    passes = [PassesOf(turns, of, size, first[of], partial(make, size)) for of, size in enumerate(sizes)]
    return MixedOrder(turns, passes, length, epoch)


def stream(sizes: list[int], weights: list[int], length: int, epochs: int) -> Places:
    """The samples of some epochs."""
    found = [order_of(sizes, weights, length, epoch).at(np.arange(length)) for epoch in range(epochs)]
    columns = zip(*((one.samples, one.pieces, one.last, one.passes) for one in found), strict=True)
    return Places(*(np.concatenate(column) for column in columns))


@settings(max_examples=25)
@given(parts, st.integers(1, 5000))
def test_each_data_set_has_its_share_and_every_image_before_any_again(
    packs: list[tuple[int, int]], length: int
) -> None:
    sizes, weights = [size for size, _ in packs], [weight for _, weight in packs]
    found = stream(sizes, weights, length, epochs=3)
    first = np.cumsum([0, *sizes])
    owner = np.searchsorted(first, found.samples, side="right") - 1
    for of, (size, weight) in enumerate(packs):
        mine = found.samples[owner == of] - first[of]
        whole = len(mine) // size * size
        for one_pass in mine[:whole].reshape(-1, size):
            assert np.array_equal(np.sort(one_pass), np.arange(size))
        assert len(np.unique(mine[whole:])) == len(mine) - whole
        assert np.array_equal(found.passes[owner == of], np.arange(len(mine)) // size)
        share = np.cumsum(owner == of) - np.arange(1, len(owner) + 1) * weight / sum(weights)
        assert np.abs(share).max() <= GROUP / 2, "at any time"


@pytest.mark.parametrize("weights", [[2, 1], [1, 1, 1], [7, 3], [12345, 7654]])
def test_proportions_are_exact(weights: list[int]) -> None:
    """To an image in each turn of all lanes, and over a whole pattern."""
    turns = Turns(weights, seed=3)
    for of, weight in enumerate(weights):
        for turn in range(1, 200, 7):
            assert abs(turns.count(of, turn * LANES) - turn * LANES * weight / sum(weights)) <= turn + 1
        assert turns.count(of, sum(weights) * LANES) == weight * LANES
        lanes = np.arange(0, LANES, GROUP)
        owners = turns.owners(np.arange(LANES)) == of
        each = np.add.reduceat(owners.astype(int), lanes)
        assert np.abs(each - GROUP * weight / sum(weights)).max() < 1.0001


@settings(max_examples=25)
@given(parts, st.sampled_from([1, 2, 3, 8, 64]), st.integers(1, 4), st.integers(0, 2))
def test_every_world_size_has_the_same_batches_and_no_two_ranks_read_the_same(
    packs: list[tuple[int, int]], world: int, per_rank: int, epoch: int
) -> None:
    sizes, weights = [size for size, _ in packs], [weight for _, weight in packs]
    batch = world * per_rank
    steps = max(1, sum(sizes) // batch)
    order = order_of(sizes, weights, steps * batch, epoch)
    whole = order.at(np.arange(len(order)))
    assert np.all(np.diff(np.stack(order.spans(whole.pieces)), axis=0) >= 0)
    pieces = []
    for rank in range(world):
        positions = [rank_positions(step, len(order), batch, rank, world, "drop") for step in range(steps)]
        mine = order.at(np.concatenate(positions))
        assert np.array_equal(mine.samples, whole.samples.reshape(steps, batch)[:, rank::world].ravel())
        first, last = order.spans(mine.pieces)
        assert ((first <= mine.samples) & (mine.samples <= last)).all()
        assert len(np.unique(mine.pieces[mine.last])) == mine.last.sum(), "each piece is let go of once"
        pieces.append(np.unique(mine.pieces))
    together = np.concatenate(pieces)
    assert len(np.unique(together)) == len(together)


def test_epochs_go_on_where_the_one_before_ended() -> None:
    """As many images at once as all data sets have: a small one comes several times, a large one not to its end."""
    sizes, weights = [5000, 100], [1, 1]
    found = stream(sizes, weights, sum(sizes), epochs=2)
    one = order_of(sizes, weights, 2 * sum(sizes), 0).at(np.arange(2 * sum(sizes)))
    assert np.array_equal(found.samples, one.samples)
    assert np.array_equal(found.passes, one.passes)
    large, small = found.samples < 5000, found.samples >= 5000
    assert abs(int(large.sum()) - int(small.sum())) <= GROUP // 2
    assert found.passes[small].max() in (50, 51)
    assert found.passes[large].max() == 1


def test_an_image_is_augmented_anew_in_each_pass() -> None:
    augmentation = read_augmentation("strong")
    samples, passes = np.array([4, 9, 4, 9, 4]), np.array([2, 0, 0, 2, 2])
    found = draw_each(augmentation, 7, passes, samples)
    for place, (sample, one_pass) in enumerate(zip(samples, passes, strict=True)):
        alone = draw(augmentation, 7, int(one_pass), np.array([sample]))
        assert equal(found.rows([place]), alone)
    assert equal(found.rows([0]), found.rows([4]))
    assert not equal(found.rows([0]), found.rows([2]))


def equal(a: Draws, b: Draws) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
def test_ranks_and_resumes_get_the_same_pixels(shards: Path, others: Path, backend: str) -> None:
    data = Path(f"{shards}=1,{others}=2")
    alone = batches(training(data, augment="degraded", backend=backend))
    first = len(read_packs(shards)[0].manifest.index("train"))
    from_second = np.concatenate([samples for samples, _, _ in alone]) >= first
    assert abs(from_second.mean() - 2 / 3) < 0.02
    assert same(batches(training(data, augment="degraded", backend=backend), first_step=5), alone[5:])
    ranks = [batches(training(data, rank, 2, augment="degraded", backend=backend)) for rank in range(2)]
    for step, (samples, images, gender) in enumerate(alone):
        for rank, of_rank in enumerate(ranks):
            assert np.array_equal(of_rank[step][0], samples[rank::2])
            assert torch.equal(of_rank[step][1], images[rank::2])
            assert torch.equal(of_rank[step][2], gender[rank::2])


def test_an_image_of_a_mixture_is_that_of_its_data_set(shards: Path, others: Path) -> None:
    """Pixels, labels and keys, of each of them."""
    loader = training(Path(f"{shards}=1,{others}=1"), augment="none")
    indexes = [pack.manifest.index("train") for pack in read_packs(Path(f"{shards}=1,{others}=1"))]
    alone = [training(path, augment="none") for path in (shards, others)]
    pixels = [dict[int, torch.Tensor](), dict[int, torch.Tensor]()]
    for of_one, one in zip(pixels, alone, strict=True):
        for samples, images, _ in batches(one):
            of_one.update(zip(samples.tolist(), images, strict=True))
    seen = 0
    for batch in loader.epoch(0):
        for place, number in enumerate(batch.samples.tolist()):
            of = int(number >= len(indexes[0]))
            sample = number - of * len(indexes[0])
            row = indexes[of][sample]
            assert loader.images.key(number).encode() == row["key"]
            assert (int(batch.gender[place]), float(batch.age[place])) == (row["gender"], row["age"])
            assert loader.name(number).endswith(str(loader.images.paths()[loader.images.shard(number)]))
            if sample in pixels[of]:
                assert torch.equal(batch.images[place], pixels[of][sample])
                seen += 1
    loader.close()
    assert seen > 200


def test_classes_are_balanced_within_each_data_set(shards: Path, others: Path) -> None:
    loader = training(Path(f"{shards}=1,{others}=1"), sampling="oversample", augment="none")
    assert [one.targets[0] == one.targets[1] for one in loader.drawn] == [True, True]
    genders = np.concatenate([gender for _, _, gender in batches(loader, epoch=0)])
    assert abs(genders.mean() - 0.5) < 0.06
    assert loader.shares() == [loader.steps * 24 // 2, loader.steps * 24 // 2]


def test_the_shards_of_all_data_sets_are_staged(shards: Path, others: Path, tmp_path: Path) -> None:
    data = Path(f"{shards}=1,{others}=1")
    loader = training(data, stage_to=tmp_path)
    assert len(list(tmp_path.glob("hpcgender-*/train/*.tar"))) == len(loader.reader.paths)
    assert all(path.is_relative_to(tmp_path) for path in loader.reader.paths)
    assert same(batches(loader), batches(training(data)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("data/a", (("data/a", 1),)),
        ("a=2,b=1", (("a", 2), ("b", 1))),
        ("a=0.5,b=.25", (("a", 2), ("b", 1))),
        ("a=4,b=6,c=2", (("a", 2), ("b", 3), ("c", 1))),
        ("x=3", (("x", 1),)),
        ("a,b=1", (("a,b=1", 1),)),
        ("lr=x", (("lr=x", 1),)),
    ],
)
def test_weights_are_read(text: str, places: tuple[tuple[str, int], ...]) -> None:
    assert places_of(Path(text)) == tuple(Place(Path(root), weight) for root, weight in places)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a=1,b=0", "each weight must be positive"),
        ("a=1,a=2", "names a twice: give it once"),
        ("a=0.1234567891,b=0.777777771", "give rounder weights"),
    ],
)
def test_weights_that_cannot_be_are_refused(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        places_of(Path(text))


def test_a_directory_that_is_named_like_a_weight_is_one(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "lr=2").symlink_to(shards)
    assert places_of(tmp_path / "lr=2") == (Place(tmp_path / "lr=2"),)


def test_options_that_come_several_times_are_one_mixture(tmp_path: Path) -> None:
    assert joined(["--data", "a=2", "--lr", "1", "--data=b=1"]) == ["--data", "a=2,b=1", "--lr", "1"]
    assert joined(["--data", "a", "--lr", "1"]) == ["--data", "a", "--lr", "1"]
    with pytest.raises(UserError, match=r"--data b: of several data sets each needs a weight, as in --data b=1$"):
        joined(["--data", "a=2", "--data", "b"])


def test_a_mixture_is_identified_by_manifests_and_weights(shards: Path, others: Path, tmp_path: Path) -> None:
    packs = read_packs(Path(f"{shards}=4,{others}=2"))
    hashes = [pack.manifest.sha256 for pack in packs]
    assert identity(packs) == f"{hashes[0]}=2,{hashes[1]}=1"
    assert manifests_in(identity(packs)) == hashes
    assert identity(packs[:1]) == hashes[0]
    assert manifests_in(hashes[0]) == hashes[:1]
    assert names_of(packs) == ["shards", "others"]
    (tmp_path / "others").symlink_to(others)
    with pytest.raises(UserError, match=r"are one data set: name it once$"):
        read_packs(Path(f"{others}=1,{tmp_path / 'others'}=1"))
