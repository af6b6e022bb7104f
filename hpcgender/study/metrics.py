"""What a run's records of its epochs say of its validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hpcgender.commands.train import numbers
from hpcgender.run_directory import METRICS
from shard_tools.base.parsing import load_json


def read_metrics(results: Path) -> list[dict[str, Any]]:
    """The records of a run's epochs, in their order; none if there are none."""
    try:
        lines = (results / METRICS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [load_json(line) for line in lines if line.endswith("}")]  # a kill may have torn the last


def score_of(record: Mapping[str, Any], tasks: Collection[str]) -> float | None:
    """What a run's epochs, and trials, are chosen by: validation accuracy, or without gender minus the MAE of age.

    None if it was not measured.
    """
    val = numbers(record.get("val"))
    if "gender" in tasks:
        return val.get("accuracy")
    return -val["age_mae"] if "age_mae" in val else None
