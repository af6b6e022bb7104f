"""Evaluates in this process."""

from __future__ import annotations

import csv
import hashlib
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint import load_trained, read_checkpoint, save_checkpoint
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import Evaluation, read_evaluation
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.examples import save_model


def evaluated(shards: Path, checkpoint: Path, out: Path, **options: Any) -> Evaluation:
    """Evaluates in this process."""
    config = EvaluateConfig(data=shards, checkpoint=checkpoint, out=out, **options)
    config.check()
    evaluate(config)
    return read_evaluation(out)


def changed(path: Path, **weights: torch.Tensor) -> Path:
    """A checkpoint with other weights, such as fc_bias for those of fc.bias."""
    content = read_checkpoint(path)
    for name, value in weights.items():
        content["model"][name.replace("_", ".")] = value
    save_checkpoint(path, {name: value for name, value in content.items() if name != "format"})
    return path


def save_skilled_model(path: Path, shards: Path) -> Path:
    """A checkpoint whose gender head looks along the line between women and men of train, so that it is often right."""
    save_model(path)
    cpu = torch.device("cpu")
    trained, manifest = load_trained(path, cpu), read_manifest(shards)
    loader = EvaluationLoader(
        ReadConfig(data=shards), manifest, "train", batch_size=300, image_size=32, ranks=Ranks(0, 1, cpu)
    )
    with closing(loader), torch.inference_mode():
        (batch,) = loader.epoch(0)
        means = trained.model.features(batch.images).mean((2, 3))
    direction = (means * (batch.gender * 2 - 1).float()[:, None]).mean(0)
    scores = means @ direction
    weight, bias = direction / scores.std(), -scores.median() / scores.std()
    nothing = torch.zeros(())
    return changed(path, fc_weight=torch.stack([weight * 0, weight]), fc_bias=torch.stack([nothing, bias]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def damaged(shards: Path, out: Path, split: str, sample: int) -> str:
    """Copies a data set as if one image had been packed broken; returns its key."""
    shutil.copytree(shards, out)
    manifest = read_manifest(out)
    row = manifest.index(split)[sample]
    tar = manifest.shard_paths(split)[row["shard"]]
    before = hashlib.sha256(tar.read_bytes()).hexdigest()
    with tar.open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"garbage" * 20)
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace(before, hashlib.sha256(tar.read_bytes()).hexdigest()))
    return str(row["key"].decode())
