"""What a run's records of its epochs say of its validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hpcgender.commands.train import numbers


def score_of(record: Mapping[str, Any], tasks: Collection[str]) -> float | None:
    """What a run's epochs, and trials, are chosen by: validation accuracy, or without gender minus the MAE of age.

    None if it was not measured.
    """
    val = numbers(record.get("val"))
    if "gender" in tasks:
        return val.get("accuracy")
    return -val["age_mae"] if "age_mae" in val else None
