"""Loaders of small batches, and all that they yield."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgender.data.config import BatchConfig, ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.loader import Loader
from hpcgender.data.packs import read_packs
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.morph import Morph

CPU = torch.device("cpu")

Batches = list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]


def training(shards: Path, rank: int = 0, world_size: int = 1, **options: Any) -> TrainingLoader:
    """The loader of a training run, of small batches unless `options` say otherwise."""
    options = {"batch_size": 24, "image_size": 40, "seed": 9, **options}
    return TrainingLoader(BatchConfig(data=shards, **options), read_packs(shards), Ranks(rank, world_size, CPU))


def evaluation(
    shards: Path, rank: int = 0, world_size: int = 1, batch_size: int = 24, **options: Any
) -> EvaluationLoader:
    return EvaluationLoader(
        ReadConfig(data=shards, **options),
        read_manifest(shards),
        "val",
        batch_size=batch_size,
        image_size=40,
        ranks=Ranks(rank, world_size, CPU),
    )


def batches(loader: Loader, epoch: int = 1, first_step: int = 0) -> Batches:
    """The samples, pixels and labels of a loader's epoch; closes the loader."""
    with closing(loader):
        return [(b.samples, b.images.clone(), b.gender) for b in loader.epoch(epoch, first_step)]


def same(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[0], y[0]) and torch.equal(x[1], y[1]) and torch.equal(x[2], y[2])
        for x, y in zip(a, b, strict=True)
    )


def three_faces(faces: Path, tmp_path: Path, val: float) -> Path:
    """A packed data set of three images, all of them in the training split or all in the validation split."""
    chosen = tmp_path / "images"
    chosen.mkdir()
    for face in sorted(faces.iterdir())[:3]:
        shutil.copy(face, chosen)
    pack(Morph(images=chosen, out=tmp_path / "out", val=val, test=0))
    return tmp_path / "out"
