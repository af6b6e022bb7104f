"""Models on corrupted images as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hpcgender.compare.paired import SIGNIFICANT
from hpcgender.compare.robustness import RobustModel
from hpcgender.evaluate.results import Score
from hpcgender.report.words import difference, interval, p_value
from shard_tools.base.text import Table, percent


def robustness_tables(models: Sequence[RobustModel]) -> dict[str, Table]:
    """The tables of robust models by topic; none without models."""
    if not models:
        return {}
    first, *others = models
    several = len(models) > 2
    over_seeds = any(len(model.runs) > 1 for model in models)
    columns = (
        "model" if over_seeds else "run",
        "as it is",
        "corrupted",
        "lost, points (95 %)",
        "mCE, % (95 %)",
        "minus first (95 %)",
        *(["p (Holm)"] if several else []),
        "lost more (95 %)",
    )
    rows = [
        (
            model.name,
            percent(model.clean),
            percent(model.accuracy),
            difference(model.lost),
            corruption_error(model.mean_corruption_error),
            difference(model.more),
            *([p_value(model.p_holm)] if several else []),
            difference(model.more_lost),
        )
        for model in others
    ]
    nothing = ("100.0 %", *[""] * (len(columns) - 5))
    rows.insert(0, (first.name, percent(first.clean), percent(first.accuracy), difference(first.lost), *nothing))
    between = [f"{model.name} - {first.name} (95 %)" for model in others] if len(others) == 1 else []
    by_corruption = [
        (
            name,
            *(percent(model.by_corruption[name]) for model in models),
            *(difference(model.more_by_corruption[name]) for model in others[: len(between)]),
        )
        for name in first.by_corruption
    ]
    names = ("corruption", *(model.name for model in models), *between)
    over = ", means over seeds" if over_seeds else ""
    return {
        "robustness": Table(columns, tuple(rows), f"accuracy of corrupted images{over}", fold_name=True),
        "corruptions": Table(names, tuple(by_corruption), f"accuracy by corruption, mean of the severities{over}"),
    }


def corruption_error(score: Score) -> str:
    """A mean corruption error with its interval, if it has one."""
    return percent(score.value) + ("" if math.isnan(score.low) else f" ({interval(score)})")


def robustness_verdicts(models: Sequence[RobustModel]) -> Iterator[str]:
    """A sentence for each model but the first: whether it is more accurate on corrupted images.

    One is if the interval of the difference excludes zero and, of several models, Holm's p is below 0.05 too.
    """
    over_seeds = any(len(model.runs) > 1 for model in models)
    for model in models[1:]:
        first = models[0]
        better, worse = (model, first) if model.more.value > 0 else (first, model)
        differ = model.more.low > 0 or model.more.high < 0
        if differ and (len(models) == 2 or model.p_holm < SIGNIFICANT):
            by = f"by {100 * abs(model.more.value):.2f} points: more than chance"
            of = " of seeds and images" if over_seeds else ""
            yield f"On corrupted images {better.name} is more accurate than {worse.name}, {by}{of}."
        else:
            alone = [one.name for one in (first, model) if over_seeds and len(one.runs) == 1]
            more = f": train {' and '.join(alone)} with other seeds too" if alone else ""
            yield f"Whether {first.name} or {model.name} is more accurate on corrupted images is unclear{more}."
