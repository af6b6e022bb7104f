"""A comparison as numbers and as tables, JSON and CSV: a row for each run, and a row for each pair of runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpcgender.compare.contenders import Contender
from hpcgender.compare.paired import Pair, verdict
from hpcgender.compare.speed import Speed
from hpcgender.evaluate.results import Data, Score
from hpcgender.evaluate.summary import against_baseline
from hpcgender.evaluate.trained_on import warning
from hpcgender.models.table import Cost
from hpcgender.report.words import difference, interval, number, p_value, time_spent
from shard_tools.base.documents import without_nan
from shard_tools.base.text import NOTHING, Table, percent

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
    training_seconds: float
    training_images_per_s: float
    training_memory_mb: float
    """Peak of a process."""
    evaluation: str
    """Its directory."""


def row(contender: Contender, cost: Cost, speed: Speed) -> Row:
    """The numbers of a run."""
    evaluation, run = contender.evaluation, contender.run
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
        training_seconds=run.seconds if run and trained else math.nan,
        training_images_per_s=known(run.images_per_s if run else None),
        training_memory_mb=known(run.peak_memory_mb if run else None),
        evaluation=str(contender.directory),
    )


def known(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs on the same images, and the differences between them."""

    data: Data
    device: str
    """That times were measured on."""
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    verdicts: tuple[str, ...]
    """What the intervals allow to conclude: each run against the majority-class baseline, and the pairs."""


def verdicts_of(contenders: Sequence[Contender], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The sentences of a comparison."""
    lines = []
    for contender in contenders:
        gender = contender.evaluation.gender
        if gender and gender.baseline:
            baseline = percent(gender.baseline.accuracy, 2)
            lines.append(f"{contender.name} is {against_baseline(gender)}; that baseline has {baseline}.")
        if line := warning(contender.evaluation.data.trained_on):
            lines.append(f"{contender.name}: {line}.")
    return (*lines, *(verdict(pair, alone=len(pairs) == 1) for pair in pairs if pair.accuracy))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The content of --json; unknown numbers are null."""
    data = {name: value for name, value in asdict(comparison.data).items() if name != "classes"}
    return {
        "data": data,
        "device": comparison.device,
        "runs": [without_nan(asdict(row)) for row in comparison.rows],
        "pairs": [without_nan(asdict(pair)) for pair in comparison.pairs],
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


def tables(comparison: Comparison) -> dict[str, Table]:
    """The tables by topic: scores, costs of the forward pass and of training, differences."""
    return {
        "scores": scores_table(comparison.rows),
        "costs": costs_table(comparison.rows),
        "training": training_table(comparison.rows),
        "differences": differences_table(comparison.pairs),
    }


def scores_table(rows: Sequence[Row]) -> Table:
    columns = ("run", "model", "px", "accuracy", "95 %", "balanced", "ROC AUC", "age MAE")
    lines = tuple(
        (
            row.name,
            row.model,
            f"{row.image_size}",
            percent(row.accuracy, 2),
            interval(Score(value=row.accuracy, low=row.accuracy_low, high=row.accuracy_high), 2),
            percent(row.balanced_accuracy, 2),
            number(row.roc_auc, 4),
            number(row.age_mae),
        )
        for row in rows
    )
    return Table(columns, lines, "scores", fold_name=True)


def costs_table(rows: Sequence[Row]) -> Table:
    on_gpu = any(row.gpu_memory_mb == row.gpu_memory_mb for row in rows)
    columns = ("run", "M parameters", "G MACs", "weights MB", "ms an image", f"ms for {rows[0].batch}", "images/s")
    lines = tuple(
        (
            row.name,
            number(row.parameters / 1e6),
            number(row.macs / 1e9, 3),
            number(row.weight_bytes / 1e6, 1),
            number(row.one_ms, 2),
            number(row.batch_ms, 1),
            number(row.images_per_s, 0),
            *([number(row.gpu_memory_mb, 0)] if on_gpu else []),
        )
        for row in rows
    )
    return Table((*columns, "GPU MB") if on_gpu else columns, lines, "cost of a forward pass", fold_name=True)


def training_table(rows: Sequence[Row]) -> Table:
    columns = ("run", "epochs", "best", "time", "images/s", "MB an image", "peak MB")
    lines = tuple(
        (
            row.name,
            f"{row.epochs or NOTHING}",
            f"{row.epoch}",
            time_spent(row.training_seconds),
            number(row.training_images_per_s, 0),
            number(row.activation_bytes / 1e6, 1),
            number(row.training_memory_mb, 0),
        )
        for row in rows
    )
    return Table(columns, lines, "cost of training", fold_name=True)


def differences_table(pairs: Sequence[Pair]) -> Table:
    aged = any(pair.age_mae for pair in pairs)
    columns = ["first minus second", "accuracy, points (95 %)", "only 1st right", "only 2nd", "p"]
    columns += ["p (Holm)"] if len(pairs) > 1 else []
    columns += ["age MAE, years"] if aged else []
    lines = []
    for pair in pairs:
        line = [f"{pair.first} - {pair.second}", difference(pair.accuracy) if pair.accuracy else NOTHING]
        if test := pair.mcnemar:
            line += [f"{test.only_first:,}", f"{test.only_second:,}", p_value(test.p)]
            line += [p_value(test.p_holm)] if len(pairs) > 1 else []
        else:
            line += [NOTHING] * (len(columns) - 2 - aged)
        line += [difference(pair.age_mae, fraction=False) if pair.age_mae else NOTHING] if aged else []
        lines.append(tuple(line))
    return Table(tuple(columns), tuple(lines), "differences", fold_name=True)
