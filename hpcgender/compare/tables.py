"""The tables of a comparison: scores, costs of the forward pass and of training, seeds, differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpcgender.compare.paired import Pair
from hpcgender.compare.robustness_tables import robustness_tables
from hpcgender.compare.rows import Comparison, Row
from hpcgender.compare.seeds import Group, GroupPair, Spread
from hpcgender.evaluate.results import Score
from hpcgender.report.words import difference, interval, number, p_value, time_spent
from shard_tools.base.text import NOTHING, Table, percent


def tables(comparison: Comparison) -> dict[str, Table]:
    """The tables by topic; that of models only where one has several seeds, and of differences where there are two."""
    return {
        "scores": scores_table(comparison.rows),
        **({"models": models_table(comparison.groups)} if comparison.groups else {}),
        "costs": costs_table(comparison.rows),
        "training": training_table(comparison.rows),
        **({"differences": differences_table(comparison.pairs)} if comparison.pairs else {}),
        **robustness_tables(comparison.robustness),
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
    columns = ("run", "epochs", "best", "gap, points", "time", "images/s", "MB an image", "peak MB")
    lines = tuple(
        (
            row.name,
            f"{row.epochs or NOTHING}",
            f"{row.epoch}",
            number(100 * row.gap, 1),
            time_spent(row.training_seconds),
            number(row.training_images_per_s, 0),
            number(row.activation_bytes / 1e6, 1),
            number(row.training_memory_mb, 0),
        )
        for row in rows
    )
    return Table(columns, lines, "cost of training", fold_name=True)


def models_table(groups: Sequence[Group]) -> Table:
    """Models over their seeds."""
    aged = any(group.age_mae for group in groups)
    columns = ["model", "seeds", "mean accuracy", "95 %", "sd, points", *(["age MAE", "95 %", "sd"] if aged else [])]
    lines = [
        (
            group.name,
            f"{len(group.seeds)}",
            *cells(group.accuracy, fraction=True),
            *(cells(group.age_mae, fraction=False) if aged else ()),
        )
        for group in groups
    ]
    return Table(tuple(columns), tuple(lines), "models over their seeds", fold_name=True)


def cells(spread: Spread | None, *, fraction: bool) -> tuple[str, str, str]:
    """Mean, interval and standard deviation, of fractions in percentage points."""
    if not spread:
        return NOTHING, NOTHING, NOTHING
    mean = spread.mean
    value = percent(mean.value, 2) if fraction else number(mean.value)
    return value, interval(mean, 2, fraction=fraction), number(spread.deviation * (100 if fraction else 1))


def differences_table(pairs: Sequence[Pair] | Sequence[GroupPair]) -> Table:
    """Differences between runs with McNemar's test, or between models over their seeds with Student's."""
    aged = any(pair.age_mae for pair in pairs)
    of_models = any(isinstance(pair, GroupPair) for pair in pairs)
    columns = ["first minus second", "accuracy, points (95 %)"]
    columns += ["seeds"] if of_models else ["only 1st right", "only 2nd"]
    columns += ["p", "p (Holm)"] if len(pairs) > 1 else ["p"]
    columns += ["age MAE, years"] if aged else []
    lines = []
    for pair in pairs:
        line = [f"{pair.first} - {pair.second}", difference(pair.accuracy) if pair.accuracy else NOTHING]
        if isinstance(pair, GroupPair):
            line += ["same" if pair.same_seeds else " and ".join(map(str, pair.seeds))]
            p = [pair.p, pair.p_holm]
        elif test := pair.mcnemar:
            line += [f"{test.only_first:,}", f"{test.only_second:,}"]
            p = [test.p, test.p_holm]
        else:
            line += [NOTHING, NOTHING]
            p = [math.nan, math.nan]
        line += [p_value(one) for one in p[: min(len(pairs), 2)]]
        line += [difference(pair.age_mae, fraction=False) if pair.age_mae else NOTHING] if aged else []
        lines.append(tuple(line))
    return Table(tuple(columns), tuple(lines), "differences", fold_name=True)
