"""Evaluation of a checkpoint: scores, and what the model said of each image."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from hpcgender.data.order import Samples
from hpcgender.evaluate.config import EvaluateConfig
from hpcgender.evaluate.inputs import Floats, gather_in_order, open_inputs
from hpcgender.metrics import Scores, Tally
from shard_tools.manifest import Index, Manifest


@torch.inference_mode()
def evaluate(config: EvaluateConfig) -> None:
    """Evaluates as `config` says; rank 0 prints the scores and writes scores.json and predictions.csv."""
    with open_inputs(config) as inputs:
        tally = Tally(inputs.ranks.device)
        samples: list[Samples] = []
        logits: list[Floats] = []
        for batch in inputs.loader.epoch(0):
            said = inputs.trained.model(batch.images.to(memory_format=torch.channels_last))
            tally.add(said, batch.gender)
            samples.append(batch.samples)
            logits.append(said.cpu().numpy())
        scores = tally.scores(inputs.ranks)
        index = inputs.loader.index
        all_logits = gather_in_order(inputs, samples, logits)
        if all_logits is not None:
            write_results(config, inputs.manifest, index, all_logits, scores, inputs.trained.epoch)


def write_results(
    config: EvaluateConfig, manifest: Manifest, index: Index, logits: Floats, scores: Scores, epoch: int
) -> None:
    """Prints the scores and writes them and every image's prediction."""
    config.out_dir.mkdir(parents=True, exist_ok=True)
    probability = 1 / (1 + np.exp(np.float64(logits[:, 0]) - logits[:, 1]))
    predicted = np.where(np.isnan(probability), -1, logits.argmax(1))
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
                    manifest.classes[prediction] if prediction >= 0 else "",
                    f"{p:.6f}" if prediction >= 0 else "",
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
