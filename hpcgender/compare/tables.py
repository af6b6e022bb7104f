"""A comparison as tables of text, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence

from hpcgender.compare.paired import Pair
from hpcgender.compare.rows import Comparison, Row
from hpcgender.evaluate.results import Score
from hpcgender.report.words import NOTHING, interval, number, p_value, percent, points, time_spent, years
from shard_tools.inspect.tables import Table


def tables(comparison: Comparison) -> list[Table]:
    """What is told, what it costs, and how the runs differ."""
    return [told(comparison.rows), costs(comparison.rows), training(comparison.rows), differences(comparison.pairs)]


def told(rows: Sequence[Row]) -> Table:
    columns = ("run", "model", "px", "accuracy", "95 %", "balanced", "ROC AUC", "age MAE")
    return Table(
        "told",
        "what they tell",
        columns,
        tuple(
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
        ),
    )


def costs(rows: Sequence[Row]) -> Table:
    on_gpu = any(row.gpu_memory_mb == row.gpu_memory_mb for row in rows)
    columns = ("run", "M parameters", "G MACs", "weights MB", "ms an image", f"ms for {rows[0].batch}", "images/s")
    return Table(
        "costs",
        "what a forward pass costs",
        (*columns, "GPU MB") if on_gpu else columns,
        tuple(
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
        ),
    )


def training(rows: Sequence[Row]) -> Table:
    columns = ("run", "epochs", "best", "time", "images/s", "MB an image", "most MB")
    return Table(
        "training",
        "what training cost",
        columns,
        tuple(
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
        ),
    )


def differences(pairs: Sequence[Pair]) -> Table:
    aged = any(pair.age_mae for pair in pairs)
    columns = ["first minus second", "accuracy, points (95 %)", "only 1st right", "only 2nd", "p"]
    columns += ["p (Holm)"] if len(pairs) > 1 else []
    columns += ["age MAE, years"] if aged else []
    rows = []
    for pair in pairs:
        row = [f"{pair.first} - {pair.second}", points(pair.accuracy) if pair.accuracy else NOTHING]
        if test := pair.mcnemar:
            row += [f"{test.only_first:,}", f"{test.only_second:,}", p_value(test.p)]
            row += [p_value(test.p_holm)] if len(pairs) > 1 else []
        else:
            row += [NOTHING] * (len(columns) - 2 - aged)
        row += [years(pair.age_mae) if pair.age_mae else NOTHING] if aged else []
        rows.append(tuple(row))
    return Table("differences", "how they differ", tuple(columns), tuple(rows))
