"""What tests of evaluation are about: untrained models in checkpoints, and predictions that a model might make."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgender.checkpoint import save_checkpoint
from hpcgender.commands.train import TrainConfig
from hpcgender.evaluate import results
from hpcgender.evaluate.predictions import Predictions
from hpcgender.inference.facts import CheckpointFacts, ComputeFacts
from hpcgender.models.create import create
from shard_tools.align.recipe import Recipe


def save_model(
    path: Path,
    seed: int = 0,
    tasks: tuple[str, ...] = ("gender", "age"),
    model: str = "se_resnet18",
    crop: Recipe | None = None,
    **run: Any,
) -> Path:
    """A checkpoint of a network that learned nothing, and is wrong about half of the time; `run`: its run's options."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"model": model, "tasks": tasks}
    if "resnet" in model:
        options |= {"output_stride": 16, "zero_init": False}
    options |= run
    content = {
        "model": create(TrainConfig(**options), 2).state_dict(),
        "classes": ["female", "male"],
        "epoch": 3,
        "step": 42,
        "config": TrainConfig(**options, image_size=32).plain(),
        "manifest": "of the data",
        "val_manifest": "",
        "leaks": [],
        "revision": "of the code",
        "crop": asdict(crop) if crop else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, content)
    return path


def predictions(images: int, subjects: int = 0, seed: int = 0, spread: float = 1.0) -> Predictions:
    """Predictions of a fair model: log-odds that often tie, some labels and ages unknown, some images broken.

    Predictions for images of one subject are alike. `subjects` 0: none is known.
    """
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 2, images)
    who = draw.integers(0, max(subjects, 1), images)
    logit = (2 * label - 1) + spread * draw.normal(size=images)
    if subjects:
        label = (who % 2).astype(np.int64)
        logit = (2 * label - 1) + draw.normal(size=subjects)[who] + 0.5 * draw.normal(size=images)
    age = draw.integers(1, 90, images).astype(np.float64)
    years = age + 6 * draw.normal(size=images)
    broken = draw.random(images) < 0.02
    return Predictions(
        key=np.array([f"{number:07d}" for number in range(images)], dtype=object),
        shard=np.full(images, "test/test-000000.tar", dtype=object),
        subject=np.array([f"subject {w}" if subjects else "" for w in who], dtype=object),
        group=np.array(["", "Asian", "Black", "White"], dtype=object)[draw.integers(0, 4, images)],
        age=np.where(draw.random(images) < 0.1, np.nan, age),
        label=np.where(draw.random(images) < 0.1, -1, label),
        logit=np.where(broken, np.nan, (logit * 8).round() / 8).astype(np.float32),
        age_prediction=np.where(broken, np.nan, years).astype(np.float32),
    )


def evaluation_facts() -> dict[str, Any]:
    """What an evaluation has besides its numbers."""
    return {
        "checkpoint": CheckpointFacts(
            path="/a", digest="b", model="c", image_size=64, tasks=("gender",), epoch=1, step=2, revision="",
            manifest="", options={"lr": 0.1, "tasks": ["gender"]}, val_manifest="", leaks=(),
        ),
        "data": results.Data(
            path="/d", source="morph", manifest="e", split="test", images=3, left_out=1, classes=("female", "male"),
            labelled={"female": 1, "male": 1}, aged=0, subjects=0,
            trained_on=results.TrainedOn(images=None, of=3, why="it is gone", left_out=False),
        ),
        "options": results.Options(batch_size=64, backend="dali", precision="fp32", flip=False),
        "run": ComputeFacts(
            began="2026-01-01T00:00:00+00:00", seconds=1.0, images_per_s=3.0, world_size=1, device="cpu", threads=1,
            versions={}, revision="", job="",
        ),
    }  # fmt: skip


def labelled(images: int, subjects: int = 0, seed: int = 0) -> Predictions:
    """Those of them with known and predicted gender."""
    found = predictions(images, subjects, seed)
    return found.rows(found.gender_known)
