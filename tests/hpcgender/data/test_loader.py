from __future__ import annotations

import io
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgender.data.augment import PRESETS, Augmentation
from hpcgender.data.loader import Loader
from hpcgender.data.shards import ShardReader
from hpcgender.distributed import Ranks
from shard_tools.commands import UserError
from shard_tools.manifest import read_manifest

CPU = torch.device("cpu")
LIGHT = PRESETS["light"]


def load(
    shards: Path,
    split: str = "train",
    *,
    rank: int = 0,
    world_size: int = 1,
    epoch: int = 1,
    first_step: int = 0,
    augmentation: Augmentation | None = LIGHT,
    threads: int = 1,
    batch_size: int = 24,
) -> list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """The samples, pixels and labels of a rank's batches."""
    loader = Loader(
        read_manifest(shards),
        split,
        batch_size=batch_size,
        image_size=40,
        ranks=Ranks(rank, world_size, CPU),
        augmentation=augmentation,
        seed=9,
        threads=threads,
    )
    with closing(loader):
        return [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(epoch, first_step)]


def same(
    a: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]], b: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]
) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[0], y[0]) and torch.equal(x[1], y[1]) and torch.equal(x[2], y[2])
        for x, y in zip(a, b, strict=True)
    )


def test_an_epoch_begun_in_the_middle_goes_on_as_it_would_have(shards: Path) -> None:
    whole = load(shards)
    assert len(whole) == read_manifest(shards).split("train").samples // 24
    assert same(load(shards, first_step=4), whole[4:])


def test_threads_do_not_matter(shards: Path) -> None:
    assert same(load(shards, threads=2), load(shards))


def test_world_sizes_see_the_same_pixels(shards: Path) -> None:
    alone = load(shards)
    for world_size in (2, 3):
        ranks = [load(shards, rank=rank, world_size=world_size) for rank in range(world_size)]
        for step, (samples, images, gender) in enumerate(alone):
            for rank, batches in enumerate(ranks):
                assert np.array_equal(batches[step][0], samples[rank::world_size])
                assert torch.equal(batches[step][1], images[rank::world_size])
                assert torch.equal(batches[step][2], gender[rank::world_size])


def test_epochs_differ(shards: Path) -> None:
    assert not same(load(shards, epoch=1), load(shards, epoch=2))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_sees_every_image_once(shards: Path, world_size: int) -> None:
    samples = read_manifest(shards).split("val").samples
    ranks = [
        load(shards, "val", rank=rank, world_size=world_size, augmentation=None, batch_size=8)
        for rank in range(world_size)
    ]
    seen = np.concatenate([batch[0] for rank in ranks for batch in rank])
    assert np.array_equal(np.sort(seen), np.arange(samples))


def test_one_image_and_fewer_images_than_ranks(faces: Path, tmp_path: Path) -> None:
    from shard_tools.pack import pack
    from shard_tools.sources.morph import Morph

    chosen = tmp_path / "images"
    chosen.mkdir()
    for face in sorted(faces.iterdir())[:3]:
        shutil.copy(face, chosen)
    pack(Morph(images=chosen, out=tmp_path / "out", val=0, test=0))
    ranks = [load(tmp_path / "out", rank=r, world_size=4, augmentation=None, batch_size=4) for r in range(4)]
    assert [sum(len(batch[0]) for batch in rank) for rank in ranks] == [1, 1, 1, 0]


def test_labels_and_pixels_belong_to_the_sample(shards: Path) -> None:
    manifest = read_manifest(shards)
    index = manifest.index("val")
    reader = ShardReader(index, manifest.shard_paths("val"))
    with closing(reader):
        for samples, images, gender in load(shards, "val", augmentation=None):
            assert gender.tolist() == index["gender"][samples].tolist()
            for sample, image in zip(samples, images, strict=True):
                (encoded,) = reader.read([sample])
                face = (
                    Image.open(io.BytesIO(encoded.tobytes())).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
                )
                expected = torch.from_numpy(np.asarray(face).copy()).permute(2, 0, 1) / 127.5 - 1
                assert (image - expected).abs().mean() < 0.02


def test_a_wide_image_is_cropped_to_its_centre_square(tmp_path: Path) -> None:
    from hpcgender.data.augment import centred
    from hpcgender.data.dali import Decoder

    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    decoder = Decoder(1, 10, CPU, colour=False, threads=1)
    decoder.submit([np.frombuffer(file.getvalue(), dtype=np.uint8)], centred(1))
    assert decoder.result().min() == 1


def test_a_flip_mirrors_the_image(shards: Path) -> None:
    plain = load(shards, augmentation=Augmentation())
    flipped = load(shards, augmentation=Augmentation(flip=1.0))
    assert torch.equal(flipped[0][1].flip(3), plain[0][1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_gpu_sees_what_a_cpu_sees(shards: Path) -> None:
    manifest = read_manifest(shards)
    device = torch.device("cuda", 0)
    options = {"batch_size": 24, "image_size": 40, "augmentation": LIGHT, "seed": 9}
    loader = Loader(manifest, "train", ranks=Ranks(0, 1, device), **options)  # type: ignore[arg-type]
    with closing(loader):
        on_gpu = [(b.samples, b.images.cpu(), b.gender.cpu()) for b in loader.epoch(1)]
    for (samples, images, gender), expected in zip(on_gpu, load(shards), strict=True):
        assert np.array_equal(samples, expected[0])
        assert torch.equal(gender, expected[2])
        assert (images - expected[1]).abs().mean() < 0.02  # nvJPEG rounds otherwise than libjpeg-turbo


def test_stopping_in_the_middle_leaves_the_loader_usable(shards: Path) -> None:
    loader = Loader(
        read_manifest(shards), "train", batch_size=16, image_size=40, ranks=Ranks(0, 1, CPU), augmentation=LIGHT
    )
    with closing(loader):
        first = [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(0)]
        begun = loader.epoch(0)
        next(begun)
        begun.close()
        again = [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(0)]
    assert same(first, again)


def damaged(shards: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the data set, and the first tar of its val split."""
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    return copy, copy / "val" / "val-000000.tar"


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    copy, tar = damaged(shards, tmp_path)
    tar.unlink()
    with pytest.raises(UserError, match=r"cannot read .*val-000000\.tar: No such file"):
        load(copy, "val", augmentation=None)


def test_a_truncated_shard_is_named(shards: Path, tmp_path: Path) -> None:
    copy, tar = damaged(shards, tmp_path)
    os.truncate(tar, 5000)
    with pytest.raises(UserError, match=r"val-000000\.tar ends within sample"):
        load(copy, "val", augmentation=None)


def test_an_image_that_does_not_decode_is_named(shards: Path, tmp_path: Path) -> None:
    copy, tar = damaged(shards, tmp_path)
    row = read_manifest(copy).index("val")[0]
    with tar.open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"garbage")
    with pytest.raises(UserError, match=row["key"].decode()):
        load(copy, "val", augmentation=None)
