"""A comparison as numbers, JSON and CSV: of each run, of each model over its seeds, and of each pair."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpcgender.compare.contenders import Contender
from hpcgender.compare.paired import Pair, verdict
from hpcgender.compare.robustness import RobustModel
from hpcgender.compare.seeds import Group, GroupPair, group_verdict
from hpcgender.compare.speed import Speed
from hpcgender.evaluate.results import Data, Score
from hpcgender.evaluate.summary import against_baseline, chosen_line
from hpcgender.evaluate.trained_on import warning
from hpcgender.models.table import Cost
from shard_tools.base.documents import without_nan
from shard_tools.base.text import percent

NO_SCORE = Score(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run: its scores and its cost. Unknown numbers are nan."""

    name: str
    model: str
    image_size: int
    epoch: int
    """Of the checkpoint."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    baseline: str
    """The class that the majority-class baseline predicts for each image; empty without both classes."""
    baseline_accuracy: float
    above_baseline: float
    """Accuracy minus that of the baseline."""
    above_baseline_low: float
    above_baseline_high: float
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
    """Peak of the batch; nan on a CPU."""
    epochs: int
    gap: float
    """Accuracy in training minus that in validation, in the last epoch that has both."""
    training_seconds: float
    training_images_per_s: float
    training_memory_mb: float
    """Peak of a process."""
    evaluation: str
    """Its directory."""


def row(contender: Contender, cost: Cost, speed: Speed) -> Row:
    """The numbers of a run."""
    evaluation, run = contender.results, contender.run
    gender, age = evaluation.gender, evaluation.age
    accuracy = gender.accuracy if gender else NO_SCORE
    baseline = gender.baseline if gender else None
    above = baseline.difference if baseline else NO_SCORE
    trained = run is not None and bool(run.records)
    return Row(
        name=contender.name,
        model=evaluation.checkpoint.model,
        image_size=evaluation.checkpoint.image_size,
        epoch=evaluation.checkpoint.epoch,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        baseline=baseline.name if baseline else "",
        baseline_accuracy=baseline.accuracy if baseline else math.nan,
        above_baseline=above.value,
        above_baseline_low=above.low,
        above_baseline_high=above.high,
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
        gap=last_gap(run.records) if run else math.nan,
        training_seconds=run.seconds if run and trained else math.nan,
        training_images_per_s=known(run.images_per_s if run else None),
        training_memory_mb=known(run.peak_memory_mb if run else None),
        evaluation=str(contender.directory),
    )


def last_gap(records: Sequence[Mapping[str, Any]]) -> float:
    """Accuracy in training minus that in validation, in the last epoch that has both; nan if none has."""
    both = [(record["train"].get("accuracy"), record["val"].get("accuracy")) for record in records]
    return next((train - val for train, val in reversed(both) if None not in (train, val)), math.nan)


def known(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs on the same images, and the differences between them, or between models that have several seeds."""

    data: Data
    device: str
    """That times were measured on."""
    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    """Each model over its seeds; empty if each has a single run."""
    pairs: tuple[Pair, ...] | tuple[GroupPair, ...]
    """Of `groups` if there are any, else of the runs."""
    robustness: tuple[RobustModel, ...]
    """Each model on corrupted images, if all were evaluated on such; a model is a run, or several seeds."""
    verdicts: tuple[str, ...]
    """What the intervals allow to conclude: each run against the majority-class baseline, the pairs, and corrupted
    images; and what is not compared."""


def verdicts_of(contenders: Sequence[Contender], pairs: Sequence[Pair] | Sequence[GroupPair]) -> tuple[str, ...]:
    """The sentences of a comparison."""
    lines = []
    for contender in contenders:
        gender = contender.results.gender
        if gender and gender.baseline:
            baseline = percent(gender.baseline.accuracy, 2)
            lines.append(f"{contender.name} is {against_baseline(gender)}; that baseline has {baseline}.")
        if line := warning(contender.results.data.trained_on):
            lines.append(f"{contender.name}: {line}.")
        if line := chosen_line(contender.results):
            lines.append(f"{contender.name}: {line}.")
    return (*lines, *conclusions(pairs))


def conclusions(pairs: Sequence[Pair] | Sequence[GroupPair]) -> list[str]:
    """A sentence for each pair that predicts gender."""
    alone = len(pairs) == 1
    return [
        verdict(pair, alone=alone) if isinstance(pair, Pair) else group_verdict(pair, alone=alone)
        for pair in pairs
        if pair.accuracy
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The content of --json; unknown numbers are null."""
    data = {name: value for name, value in asdict(comparison.data).items() if name != "classes"}
    return {
        "data": data,
        "device": comparison.device,
        "runs": [without_nan(asdict(row)) for row in comparison.rows],
        "models": [without_nan(asdict(group)) for group in comparison.groups],
        "pairs": [without_nan(asdict(pair)) for pair in comparison.pairs],
        "robustness": [without_nan(asdict(run)) for run in comparison.robustness],
        "verdicts": list(comparison.verdicts),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each run below the names of the columns; unknown numbers are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in without_nan(asdict(row)).items()})
    return text.getvalue()
