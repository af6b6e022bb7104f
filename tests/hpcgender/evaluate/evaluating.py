"""Evaluates in this process."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint import read_checkpoint, save_checkpoint
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import Evaluation, read_evaluation
from shard_tools.manifest import read_manifest


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
