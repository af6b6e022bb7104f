from __future__ import annotations

import hashlib
import io
import sys
from contextlib import closing
from pathlib import Path
from subprocess import run as run_program
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgender.data.order import LANES, Order, rank_positions, steps_per_epoch
from hpcgender.data.sampling import draw_samples
from hpcgender.data.shards import ShardReader, Window
from shard_tools.manifest import Manifest, read_manifest
from shard_tools.pack import pack
from shard_tools.sources.morph import Morph
from tests.benchmarks.order import bytes_held
from tests.hpcgender.data.small_loaders import Batches, batches, evaluation, same, three_faces, training


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
def test_an_epoch_begun_in_the_middle_goes_on_as_it_would_have(shards: Path, backend: str) -> None:
    whole = batches(training(shards, augment="degraded", backend=backend))
    assert len(whole) == read_manifest(shards).split("train").samples // 24
    assert same(batches(training(shards, augment="degraded", backend=backend), first_step=4), whole[4:])


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
def test_threads_do_not_matter(shards: Path, backend: str) -> None:
    assert same(batches(training(shards, workers=2, backend=backend)), batches(training(shards, backend=backend)))


@pytest.mark.parametrize("options", [{}, {"sampling": "oversample", "last_batch": "pad"}])
def test_world_sizes_see_the_same_pixels(shards: Path, options: dict[str, Any]) -> None:
    alone = batches(training(shards, **options))
    for world_size in (2, 3):
        ranks = [batches(training(shards, rank, world_size, **options)) for rank in range(world_size)]
        for step, (samples, images, gender) in enumerate(alone):
            for rank, of_rank in enumerate(ranks):
                assert np.array_equal(of_rank[step][0], samples[rank::world_size])
                assert torch.equal(of_rank[step][1], images[rank::world_size])
                assert torch.equal(of_rank[step][2], gender[rank::world_size])


def test_epochs_differ(shards: Path) -> None:
    assert not same(batches(training(shards), epoch=1), batches(training(shards), epoch=2))


HASH = """
import hashlib, sys
from pathlib import Path
from tests.hpcgender.data.test_loader import batches, pixel_hash, training
print(pixel_hash(batches(training(Path(sys.argv[1]), workers=2, augment="degraded"))))
"""


def pixel_hash(of: Batches) -> str:
    """The hash of all pixels."""
    return hashlib.sha256(torch.cat([images for _, images, _ in of]).numpy().tobytes()).hexdigest()


def test_another_process_sees_the_same_pixels(shards: Path) -> None:
    here = pixel_hash(batches(training(shards, augment="degraded")))
    other = run_program([sys.executable, "-c", HASH, str(shards)], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == here


@pytest.mark.parametrize("sampling", ["undersample", "oversample"])
def test_a_balanced_epoch_has_as_many_men_as_women(tmp_path: Path, shards: Path, sampling: str) -> None:
    counts = read_manifest(shards).split("train").counts
    loader = training(shards, sampling=sampling, batch_size=8, last_batch="pad")
    assert loader.drawn[0].targets == [(min if sampling == "undersample" else max)(counts.values())] * 2
    genders = torch.cat([gender for _, _, gender in batches(loader)])[: sum(loader.drawn[0].targets)]
    assert torch.bincount(genders).tolist() == loader.drawn[0].targets


def test_a_padded_epoch_begins_again(shards: Path) -> None:
    samples = read_manifest(shards).split("train").samples
    padded, dropped = (batches(training(shards, last_batch=last_batch)) for last_batch in ("pad", "drop"))
    assert len(padded) == len(dropped) + 1
    assert same(padded[:-1], dropped)
    last, left = padded[-1], samples - 24 * len(dropped)
    assert len(last[0]) == 24
    assert np.array_equal(last[0][left:], dropped[0][0][: 24 - left])
    assert torch.equal(last[1][left:], dropped[0][1][: 24 - left])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_sees_every_image_once(shards: Path, world_size: int) -> None:
    samples = read_manifest(shards).split("val").samples
    ranks = [batches(evaluation(shards, rank, world_size, batch_size=8)) for rank in range(world_size)]
    seen = np.concatenate([batch[0] for rank in ranks for batch in rank])
    assert np.array_equal(np.sort(seen), np.arange(samples))


def test_one_image_and_fewer_images_than_ranks(faces: Path, tmp_path: Path) -> None:
    packed = three_faces(faces, tmp_path, val=1)
    ranks = [batches(evaluation(packed, r, 4, batch_size=4)) for r in range(4)]
    assert [sum(len(batch[0]) for batch in rank) for rank in ranks] == [1, 1, 1, 0]


def test_labels_and_pixels_belong_to_the_sample(shards: Path) -> None:
    manifest = read_manifest(shards)
    index = manifest.index("val")
    with closing(ShardReader(index, manifest.shard_paths("val"))) as reader:
        for samples, images, gender in batches(evaluation(shards)):
            assert gender.tolist() == index["gender"][samples].tolist()
            for sample, image in zip(samples.tolist(), images, strict=True):
                encoded = reader.read_image(sample)
                face = (
                    Image.open(io.BytesIO(encoded.tobytes())).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
                )
                expected = torch.from_numpy(np.asarray(face).copy()).permute(2, 0, 1) / 127.5 - 1
                assert (image - expected).abs().mean() < 0.02


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
def test_stopping_in_the_middle_leaves_the_loader_usable(shards: Path, backend: str) -> None:
    with closing(training(shards, backend=backend)) as loader:
        first = [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(0)]
        begun = loader.epoch(0)
        next(begun)
        begun.close()
        again = [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(0)]
    assert same(first, again)


def test_staged_shards_give_the_same_pixels(shards: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with closing(training(shards, stage_to=scratch)) as loader:
        assert all(scratch in path.parents for path in loader.reader.paths)
        staged = [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(1)]
    assert same(staged, batches(training(shards)))
    assert list(scratch.iterdir()) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A data set of 20,000 tiny images, so that lanes have many chunks."""
    root = tmp_path_factory.mktemp("many")
    images = root / "images"
    images.mkdir()
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(file, "JPEG")
    for number in range(20_000):
        content = file.getvalue() + number.to_bytes(4, "big")
        (images / f"{number:06d}_00{'MF'[number % 4 == 0]}20.jpg").write_bytes(content)
    pack(Morph(images=images, out=root / "out", val=0, test=0, shard_mb=4, decode=False))
    return read_manifest(root / "out")


@pytest.mark.parametrize(
    ("world_size", "sampling"),
    [(1, "none"), (4, "none"), (16, "none"), (64, "none"), (2, "undersample"), (2, "oversample")],
)
def test_the_ranks_together_read_every_byte_once_and_hold_little(
    many: Manifest, world_size: int, sampling: str
) -> None:
    index = many.index("train")
    gender = index["gender"]
    counts = np.bincount(gender)
    targets = {"undersample": [counts.min()] * 2, "oversample": [counts.max()] * 2}.get(sampling)
    drawn = draw_samples(gender.copy(), targets, 0, 0) if targets else None
    order = Order(len(index), 5, 0, 0, drawn=drawn)
    steps = range(steps_per_epoch(len(order), 64, "keep"))
    total, held, seen = 0, 0, []
    for rank in range(world_size):
        with closing(ShardReader(index, many.shard_paths("train"))) as reader:
            window = Window(reader, order)
            for step in steps:
                places = order.at(rank_positions(step, len(order), 64, rank, world_size, "keep"))
                window.read_ahead(places)
                for sample, encoded in zip(places.samples.tolist(), window.take(places), strict=True):
                    assert len(encoded) == index["length"][sample]
                seen.append(places.samples)
                held = max(held, bytes_held(window))
            assert bytes_held(window) == 0
            window.close()
            total += reader.bytes_read
    assert len(np.concatenate(seen)) == len(order)
    size = sum(shard.bytes for shard in many.split("train").shards)
    assert total <= size
    if sampling == "none":
        assert total > 0.6 * size  # the rest is headers and labels between pieces
    assert held <= LANES / world_size * 5 * size / len(index)


def test_a_loader_holds_no_more_than_its_window_over_an_epoch(many: Manifest) -> None:
    with closing(training(many.root, batch_size=64, image_size=8, window_mb=8, augment="none")) as loader:
        assert loader.drawn[0].chunk == 3
        held = 0
        order = loader.order(0)
        window = Window(loader.reader, order)
        for _, places, _ in loader.plan(order, 0):
            window.read_ahead(places)
            window.take(places)
            held = max(held, bytes_held(window))
        window.close()
        assert 1e6 < held <= 8e6
