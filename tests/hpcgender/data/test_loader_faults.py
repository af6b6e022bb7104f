"""What a loader does with shards that are missing, cut short or fail, and with images that do not decode."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgender.data.order import LANES, Order
from hpcgender.data.shards import ShardReader
from shard_tools.base import storage
from shard_tools.base.errors import StorageError, UserError
from shard_tools.images import content_hash
from shard_tools.manifest import read_manifest
from tests.hpcgender.data.small_loaders import batches, evaluation, same, three_faces, training


def damaged(shards: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the data set, and the first tar of its val split."""
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    return copy, copy / "val" / "val-000000.tar"


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    copy, tar = damaged(shards, tmp_path)
    tar.unlink()
    with pytest.raises(UserError, match=r"cannot read .*val-000000\.tar: No such file"):
        batches(evaluation(copy))


def test_a_truncated_shard_is_named(shards: Path, tmp_path: Path) -> None:
    copy, tar = damaged(shards, tmp_path)
    os.truncate(tar, 5000)
    with pytest.raises(UserError, match=r"val-000000\.tar is cut short, before the end of sample \d+ at byte"):
        batches(evaluation(copy))


@pytest.mark.parametrize("how", ["deleted", "truncated"])
def test_a_shard_that_is_lost_in_the_middle_of_a_run_is_named(shards: Path, tmp_path: Path, how: str) -> None:
    copy, _ = damaged(shards, tmp_path)
    tars = sorted((copy / "train").glob("*.tar"))
    assert len(tars) > 2
    with closing(training(copy, batch_size=8)) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        for tar in tars:
            if how == "truncated":
                os.truncate(tar, 1000)
            else:
                loader.reader.close()  # an open file outlives its name
                tar.unlink()
        with pytest.raises(UserError, match=r"train-00000\d\.tar"):
            list(epoch)


def test_of_many_shards_few_are_open_at_a_time(shards: Path) -> None:
    manifest = read_manifest(shards)
    index, paths = manifest.index("train"), manifest.shard_paths("train")
    assert len(paths) > 3
    reader = ShardReader(index, paths, most_open=2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    everywhere = np.random.default_rng(0).integers(0, len(index), 100)
    for sample in everywhere.tolist():
        encoded = reader.read_image(sample)
        assert content_hash(encoded.tobytes()) == index["content"][sample]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def failing_pread(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """An open file of the training split has become stale so often; opened again, it is another one."""
    whole, faults = os.pread, iter(range(times))  # of all threads
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))

    def pread(file: int, size: int, begin: int) -> bytes:
        is_train = Path(f"/proc/self/fd/{file}").readlink().parent.name == "train"
        if is_train and next(faults, None) is not None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return whole(file, size, begin)

    monkeypatch.setattr(os, "pread", pread)


def test_a_stale_shard_is_opened_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches(training(shards))
    failing_pread(monkeypatch, 2)
    assert same(batches(training(shards)), expected)


def test_a_shard_that_stays_stale_is_the_storages_fault(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_pread(monkeypatch, 1000)
    with pytest.raises(StorageError, match=r"train-00000\d\.tar: Stale file handle: its storage"):
        batches(training(shards))


def spoil(copy: Path, split: str, samples: list[int]) -> list[str]:
    """Overwrites images of a packed split with garbage; returns their keys."""
    rows = read_manifest(copy).index(split)[samples]
    tars = read_manifest(copy).shard_paths(split)
    for row in rows:
        with tars[row["shard"]].open("r+b") as file:
            file.seek(int(row["offset"]))
            file.write(b"garbage" * 20)
    return [row["key"].decode() for row in rows]


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
def test_the_next_of_its_lane_takes_the_place_of_a_bad_image(
    shards: Path, tmp_path: Path, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    good = batches(training(shards, backend=backend))
    copy, _ = damaged(shards, tmp_path)
    order = np.concatenate([samples for samples, _, _ in good])
    bad = [int(order[3]), int(order[4]), int(order[100])]
    keys = spoil(copy, "train", bad)
    loader = training(copy, backend=backend, max_bad=0.1)
    with closing(loader):
        epochs = [[(b.samples, b.images.clone(), b.gender) for b in loader.epoch(1)] for _ in range(2)]
        assert loader.bad == set(bad)
        assert loader.left_out == 6
    assert same(*epochs)
    for (samples, images, _), (expected, pixels, _) in zip(epochs[0], good, strict=True):
        kept = ~np.isin(expected, bad)
        assert np.array_equal(samples[kept], expected[kept])
        assert torch.equal(images[torch.from_numpy(kept)], pixels[torch.from_numpy(kept)])
    # There are fewer images than lanes, so the next lane's image takes the place: of 3 and of 4 that of 5.
    seen = np.concatenate([samples for samples, _, _ in epochs[0]])
    assert seen[[3, 4, 100]].tolist() == order[[5, 5, 101]].tolist()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(
        sum(f"{key} in {copy}" in line and ".tar does not decode" in line for line in lines) == 1 for key in keys
    )
    for world_size in (2, 4):
        parts = [batches(training(copy, r, world_size, backend=backend, max_bad=0.1)) for r in range(world_size)]
        for step, (samples, images, _) in enumerate(epochs[0]):
            for rank, part in enumerate(parts):
                assert np.array_equal(part[step][0], samples[rank::world_size])
                assert torch.equal(part[step][1], images[rank::world_size])


def test_the_next_of_a_lane() -> None:
    order = Order(2 * LANES + 5, 1, 0, 0)
    assert order.after(np.array([0, LANES, 2 * LANES, 2 * LANES + 4, LANES + 5, 2 * LANES - 1])).tolist() == [
        LANES,
        2 * LANES,
        1,
        5,
        6,
        0,
    ]


def test_too_many_bad_images_stop_the_run(shards: Path, tmp_path: Path) -> None:
    copy, _ = damaged(shards, tmp_path)
    samples = read_manifest(copy).split("train").samples
    spoil(copy, "train", list(range(0, samples, 10)))
    with pytest.raises(UserError, match=r"of rank 0 failed to decode, more than --max-bad allows, the last .*\.tar"):
        batches(training(copy, max_bad=0.05))


def test_a_split_of_bad_images_alone_is_told(faces: Path, tmp_path: Path) -> None:
    packed = three_faces(faces, tmp_path, val=0)
    spoil(packed, "train", [0, 1, 2])
    with pytest.raises(UserError, match="no image of the train split decodes"):
        batches(training(packed, max_bad=1.0, batch_size=2))


def test_evaluation_leaves_a_bad_image_out(shards: Path, tmp_path: Path) -> None:
    copy, _ = damaged(shards, tmp_path)
    good = batches(evaluation(shards, batch_size=2))
    spoil(copy, "val", [0, 5])
    loader = evaluation(copy, batch_size=2, max_bad=0.2)
    left = batches(loader)
    assert loader.left_out == 2
    seen = np.concatenate([samples for samples, _, _ in left])
    assert np.array_equal(np.sort(seen), np.setdiff1d(np.arange(read_manifest(copy).split("val").samples), [0, 5]))
    pixels = {s: image for samples, images, _ in good for s, image in zip(samples.tolist(), images, strict=True)}
    for samples, images, _ in left:
        for sample, image in zip(samples.tolist(), images, strict=True):
            assert torch.equal(image, pixels[sample])
