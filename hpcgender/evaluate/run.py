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
from hpcgender.metrics import Scores, Tally, without_nan
from hpcgender.models.losses import task_losses
from hpcgender.models.network import Outputs
from shard_tools.manifest import Index, Manifest


@torch.inference_mode()
def evaluate(config: EvaluateConfig) -> None:
    """Evaluates as `config` says; rank 0 prints the scores and writes scores.json and predictions.csv."""
    with open_inputs(config) as inputs:
        trained = inputs.trained
        tally = Tally(inputs.ranks.device, trained.config.task_weights)
        samples: list[Samples] = []
        said: list[Floats] = []
        for batch in inputs.loader.epoch(0):
            outputs = trained.model(batch.images.to(memory_format=torch.channels_last))
            losses = task_losses(outputs, batch.gender, batch.age, trained.config)
            tally.add(losses, gender=batch.gender, logits=outputs.gender, age=batch.age, years=outputs.age)
            samples.append(batch.samples)
            said.append(as_rows(outputs))
        scores = tally.scores(inputs.ranks)
        rows = gather_in_order(inputs, samples, said)
        if rows is not None:
            write_results(config, inputs.manifest, inputs.loader.index, rows, scores, trained.epoch)


def as_rows(outputs: Outputs) -> Floats:
    """What the model says of n images, float32 (n, 3): both logits of gender and the age, nan where it says nothing."""
    said = next(output for output in outputs if output is not None)
    rows = torch.full((len(said), 3), torch.nan)
    if outputs.gender is not None:
        rows[:, :2] = outputs.gender
    if outputs.age is not None:
        rows[:, 2] = outputs.age
    return rows.numpy()


def write_results(
    config: EvaluateConfig, manifest: Manifest, index: Index, said: Floats, scores: Scores, epoch: int
) -> None:
    """Prints the scores and writes them and every image's prediction: `said` has the rows of `as_rows`."""
    config.out_dir.mkdir(parents=True, exist_ok=True)
    logits, years = said[:, :2], said[:, 2]
    probability = 1 / (1 + np.exp(np.float64(logits[:, 0]) - logits[:, 1]))
    predicted = np.where(np.isnan(probability), -1, logits.argmax(1))
    with (config.out_dir / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = (
            "key",
            "shard",
            "subject",
            "group",
            "age",
            "gender",
            "predicted",
            "probability_male",
            "predicted_age",
        )
        writer.writerow(columns)
        shards = [shard.file for shard in manifest.split(config.split).shards]
        for row, prediction, p, year in zip(index, predicted, probability, years, strict=True):
            writer.writerow(
                (
                    row["key"].decode(),
                    shards[row["shard"]],
                    row["subject"].decode(),
                    row["group"].decode(),
                    f"{row['age']:g}" if row["age"] >= 0 else "",
                    manifest.classes[row["gender"]] if row["gender"] >= 0 else "",
                    manifest.classes[prediction] if prediction >= 0 else "",
                    f"{p:.6f}" if prediction >= 0 else "",
                    "" if np.isnan(year) else f"{year:.2f}",
                )
            )
    labels = index["gender"]
    confusion = {
        name: {
            other: int(np.count_nonzero((labels == value) & (predicted == place)))
            for place, other in enumerate(manifest.classes)
        }
        for value, name in enumerate(manifest.classes)
    }
    content: dict[str, Any] = {
        "checkpoint": str(config.checkpoint),
        "epoch": epoch,
        "data": str(config.data),
        "manifest": manifest.sha256,
        "split": config.split,
        **without_nan(asdict(scores)),
        "confusion": confusion,
    }
    (config.out_dir / "scores.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    parts = []
    if scores.class_accuracy:
        classes = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in scores.class_accuracy.items())
        parts.append(f"accuracy {scores.accuracy:.2%} ({classes}; balanced {scores.balanced_accuracy:.2%})")
    if scores.age_images:
        parts.append(f"age MAE {scores.age_mae:.2f} years")
    print(f"{config.split} of {config.data}: {', '.join((*parts, f'loss {scores.loss:.4f}'))}, {scores.images} images")
    print(f"per image: {config.out_dir / 'predictions.csv'}")
