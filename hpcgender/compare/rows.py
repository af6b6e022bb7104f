"""What a comparison says, as numbers: a row for each run, and a row for each pair."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpcgender.compare.contenders import Contender
from hpcgender.compare.paired import Pair
from hpcgender.compare.speed import Speed
from hpcgender.evaluate.results import Data, Score
from hpcgender.models.table import Cost
from shard_tools.base.documents import without_nan

NO_SCORE = Score(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run: what it tells and what it costs. nan is what is not known."""

    name: str
    model: str
    image_size: int
    epoch: int
    """Of the checkpoint."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    roc_auc: float
    age_mae: float
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    """Of an image, in training."""
    one_ms: float
    """Median time of a forward pass of one image."""
    batch: int
    batch_ms: float
    images_per_s: float
    """Of that batch."""
    gpu_memory_mb: float
    """That the batch takes; nan on a CPU."""
    epochs: int
    training_seconds: float
    training_images_per_s: float
    training_memory_mb: float
    """The most that a process held."""
    evaluation: str
    """Its directory."""


def row(contender: Contender, cost: Cost, speed: Speed) -> Row:
    """What is known of a run."""
    evaluation, run = contender.evaluation, contender.run
    gender, age = evaluation.gender, evaluation.age
    accuracy = gender.accuracy if gender else NO_SCORE
    trained = run is not None and bool(run.records)
    return Row(
        name=contender.name,
        model=evaluation.checkpoint.model,
        image_size=evaluation.checkpoint.image_size,
        epoch=evaluation.checkpoint.epoch,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        balanced_accuracy=gender.balanced_accuracy.value if gender else math.nan,
        roc_auc=gender.roc_auc.value if gender else math.nan,
        age_mae=age.mae.value if age else math.nan,
        parameters=cost.parameters,
        macs=cost.macs,
        weight_bytes=cost.weight_bytes,
        activation_bytes=cost.activation_bytes,
        one_ms=speed.one_ms,
        batch=speed.batch,
        batch_ms=speed.batch_ms,
        images_per_s=speed.images_per_s,
        gpu_memory_mb=known(speed.peak_memory_mb),
        epochs=len(run.records) if run else 0,
        training_seconds=run.seconds if run and trained else math.nan,
        training_images_per_s=known(run.images_per_s if run else None),
        training_memory_mb=known(run.peak_memory_mb if run else None),
        evaluation=str(contender.directory),
    )


def known(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it."""

    data: Data
    device: str
    """That times were measured on."""
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The content of --json; what is not known is null."""
    data = {name: value for name, value in asdict(comparison.data).items() if name != "classes"}
    return {
        "data": data,
        "device": comparison.device,
        "runs": [without_nan(asdict(row)) for row in comparison.rows],
        "pairs": [without_nan(asdict(pair)) for pair in comparison.pairs],
    }


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each run below their names; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in without_nan(asdict(row)).items()})
    return text.getvalue()
