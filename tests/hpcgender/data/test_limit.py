"""--limit: a sample of whole subjects, the same for all runs with its seed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgender.data.config import BatchConfig
from hpcgender.data.limit import Part, parts_of
from hpcgender.data.packs import read_packs
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest, read_manifest

ONE = Ranks(0, 1, torch.device("cpu"))


def chosen(part: Part) -> list[int]:
    assert part.chosen is not None
    return part.chosen.tolist()  # type: ignore[no-any-return]


def test_whole_subjects_are_drawn_and_their_images_counted(shards: Path) -> None:
    manifest = read_manifest(shards)
    (part,) = parts_of([manifest], 100, 0)
    index = manifest.index("train")
    inside = np.isin(np.arange(len(index)), chosen(part))
    assert 95 <= part.images <= 100
    assert part.images == np.count_nonzero(inside)
    assert not set(index["subject"][inside]) & set(index["subject"][~inside])
    assert part.subjects == len(set(index["subject"][inside])) < part.images
    assert part.counts == {
        name: int((index["gender"][inside] == code).sum()) for code, name in enumerate(manifest.classes)
    }
    assert chosen(parts_of([manifest], 100, 0)[0]) == chosen(part)
    assert chosen(parts_of([manifest], 100, 1)[0]) != chosen(part)
    (every,) = parts_of([manifest], 10**6, 0)
    assert (every.images, every.counts) == (len(index), manifest.split("train").counts)


def without_subjects(shards: Path, out: Path) -> Manifest:
    shutil.copytree(shards, out)
    (out / "manifest.json").write_text((out / "manifest.json").read_text() + "\n")
    index = np.load(out / "train" / "index.npy")
    index["subject"] = b""
    np.save(out / "train" / "index.npy", index)
    return read_manifest(out)


def test_images_of_no_subject_are_drawn_one_by_one_and_of_all_data_sets_together(shards: Path, tmp_path: Path) -> None:
    alone = without_subjects(shards, tmp_path / "alone")
    (part,) = parts_of([alone], 100, 0)
    assert (part.images, part.subjects) == (100, 0)
    both = parts_of([alone, read_manifest(shards)], 200, 0)
    assert 195 <= sum(one.images for one in both) <= 200
    assert min(one.images for one in both) > 70  # each has as many
    with pytest.raises(UserError, match=r"--limit 1: no subject has so few images, the least is \d"):
        parts_of([of_many_images(shards, tmp_path / "many")], 1, 0)


def test_a_data_set_of_which_no_image_is_left_is_named(shards: Path, tmp_path: Path) -> None:
    few = of_many_images(shards, tmp_path / "few")
    with pytest.raises(UserError) as error:
        parts_of([read_manifest(shards), few], 1, 0)
    advice = "give more, leave it out, or another --limit-seed"
    assert str(error.value) == f"--limit 1 leaves no image of {few.root}: {advice}"


def of_many_images(shards: Path, out: Path) -> Manifest:
    """A data set whose subjects have two images or more."""
    manifest = without_subjects(shards, out)
    index = np.load(out / "train" / "index.npy")
    index["subject"] = [str(min(number // 2, len(index) // 2 - 1)).encode() for number in range(len(index))]
    np.save(out / "train" / "index.npy", index)
    return manifest


@pytest.mark.parametrize("sampling", ["none", "oversample"])
def test_epochs_have_the_sample_alone(shards: Path, sampling: str) -> None:
    """And the seed of the run draws their order, not the sample."""
    options = {"data": shards, "batch_size": 10, "limit": 60, "sampling": sampling, "last_batch": "pad"}
    packs = read_packs(shards)
    (part,) = parts_of([packs[0].manifest], 60, 0)
    orders = []
    for seed in (0, 1):
        config = BatchConfig(**options, seed=seed, backend="torchvision")  # type: ignore[arg-type]
        with closing(TrainingLoader(config, packs, ONE)) as loader:
            order = loader.order(0)
            orders.append(order.at(np.arange(len(order))).samples.tolist())
            gender = loader.images.gender
        assert set(orders[-1]) == set(chosen(part))
        if sampling == "oversample":
            assert np.bincount(gender[orders[-1]]).tolist() == [max(part.counts.values())] * 2
        else:
            assert len(orders[-1]) == part.images
    assert orders[0] != orders[1]
