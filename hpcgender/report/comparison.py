"""A report's section that compares runs: the paired differences where several were evaluated on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcgender.compare.rows import conclusions
from hpcgender.compare.seeds import EvaluatedRun, compared
from hpcgender.compare.tables import differences_table, models_table
from hpcgender.evaluate.results import Evaluation
from hpcgender.report.sources import Part

Found = list[tuple[str, Path, Evaluation]]
"""Evaluations with the names of their runs and their directories."""


def comparison_section(parts: Sequence[Part]) -> dict[str, object] | None:
    """The content of comparison.html; None if no two runs were evaluated on the same images."""
    together: dict[tuple[str, str], Found] = {}
    for part in parts:
        for directory, evaluation in part.evaluations.items():
            of = (evaluation.data.manifest, evaluation.data.split)
            together.setdefault(of, []).append((part.name, directory, evaluation))
    comparisons = [content for found in together.values() if (content := comparison(found))]
    return {"comparisons": comparisons} if comparisons else None


def comparison(found: Found) -> dict[str, object] | None:
    """The differences between evaluations of one split; None if they are of one run, or of other images."""
    if len({Path(evaluation.checkpoint.path).parent.parent for _, _, evaluation in found}) < 2:
        return None
    runs = [name for name, _, _ in found]
    same: list[EvaluatedRun] = []
    for name, directory, evaluation in found:
        unique = name if runs.count(name) == 1 else f"{name}: {directory.resolve().name}"
        one = EvaluatedRun(name=unique, results=evaluation, directory=directory)
        if not same or np.array_equal(one.predictions.key, same[0].predictions.key):
            same.append(one)
    if len(same) < 2:
        return None
    groups, pairs = compared(same)
    return {
        "name": same[0].title,
        "verdicts": conclusions(pairs),
        "models": models_table(groups) if groups else None,
        "table": differences_table(pairs) if pairs else None,
    }
