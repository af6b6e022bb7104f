"""Evaluation of a checkpoint: scores, and what the model said of each image."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.data.loader import Loader
from hpcgender.data.order import Samples
from hpcgender.distributed import process_group, speak_into
from hpcgender.evaluate.config import EvaluateConfig
from hpcgender.metrics import Scores, Tally
from shard_tools.manifest import Index, Manifest, read_manifest

Logits = npt.NDArray[np.float32]


@torch.inference_mode()
def evaluate(config: EvaluateConfig) -> None:
    """Evaluates as `config` says; rank 0 prints the scores and writes scores.json and predictions.csv."""
    config.check()
    manifest = read_manifest(config.data)
    with process_group() as ranks:
        speak_into(config.out_dir / "logs", ranks.rank)
        trained = load_trained(config.checkpoint, ranks.device, manifest.classes)
        loader = Loader(
            manifest,
            config.split,
            batch_size=config.batch_size * ranks.world_size,
            image_size=trained.image_size,
            ranks=ranks,
            threads=config.workers,
        )
        tally = Tally(ranks.device)
        samples: list[Samples] = []
        logits: list[torch.Tensor] = []
        with closing(loader):
            for batch in loader.epoch(0):
                out = trained.model(batch.images.to(memory_format=torch.channels_last))
                tally.add(out, batch.gender)
                samples.append(batch.samples)
                logits.append(out)
        scores = tally.scores(ranks)
        width = len(trained.classes)
        own: tuple[Samples, Logits] = (
            np.concatenate(samples) if samples else np.empty(0, dtype=np.int64),
            torch.cat(logits).cpu().numpy() if logits else np.empty((0, width), dtype=np.float32),
        )
        parts = ranks.gather(own)
        if ranks.is_first:
            all_logits = in_order(parts, len(loader.index))
            write_results(config, manifest, loader.index, all_logits, scores, trained.epoch)


def in_order(parts: list[tuple[Samples, Logits]], count: int) -> Logits:
    """The logits of all ranks by sample number; every sample must be there exactly once."""
    samples = np.concatenate([part[0] for part in parts])
    logits = np.concatenate([part[1] for part in parts])
    assert np.array_equal(np.sort(samples), np.arange(count)), "an image was evaluated twice or not at all"
    return logits[np.argsort(samples)]


def write_results(
    config: EvaluateConfig, manifest: Manifest, index: Index, logits: Logits, scores: Scores, epoch: int
) -> None:
    """Prints the scores and writes them and every image's prediction."""
    config.out_dir.mkdir(parents=True, exist_ok=True)
    probability = 1 / (1 + np.exp(np.float64(logits[:, 0]) - logits[:, 1]))
    predicted = logits.argmax(1)
    with (config.out_dir / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "shard", "subject", "group", "age", "gender", "predicted", "probability_male"))
        shards = [shard.file for shard in manifest.split(config.split).shards]
        for row, prediction, p in zip(index, predicted, probability, strict=True):
            gender = manifest.classes[row["gender"]] if row["gender"] >= 0 else ""
            age = f"{row['age']:g}" if row["age"] >= 0 else ""
            writer.writerow(
                (
                    row["key"].decode(),
                    shards[row["shard"]],
                    row["subject"].decode(),
                    row["group"].decode(),
                    age,
                    gender,
                    manifest.classes[prediction],
                    f"{p:.6f}",
                )
            )
    labels = index["gender"]
    confusion = {
        name: {
            said: int(np.count_nonzero((labels == value) & (predicted == other)))
            for other, said in enumerate(manifest.classes)
        }
        for value, name in enumerate(manifest.classes)
    }
    content: dict[str, Any] = {
        "checkpoint": str(config.checkpoint),
        "epoch": epoch,
        "data": str(config.data),
        "manifest": manifest.sha256,
        "split": config.split,
        **asdict(scores),
        "confusion": confusion,
    }
    (config.out_dir / "scores.json").write_text(json.dumps(content, indent=1) + "\n")
    classes = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in scores.class_accuracy.items())
    print(
        f"{config.split} of {config.data}: accuracy {scores.accuracy:.2%} ({classes}; balanced "
        f"{scores.balanced_accuracy:.2%}), loss {scores.loss:.4f}, {scores.images} images"
    )
    print(f"per image: {config.out_dir / 'predictions.csv'}")
