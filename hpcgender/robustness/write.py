"""Writes what an evaluation with --corrupt adds to the directory of its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcgender.evaluate.predictions import Predictions
from hpcgender.robustness.corrupted import Corrupted, write_corrupted
from hpcgender.robustness.results import Robustness
from hpcgender.robustness.scores import robustness
from shard_tools.base.files import write_whole

PICTURE = "robustness.png"


def write_robustness(directory: Path, predictions: Predictions, corrupted: Mapping[str, Corrupted]) -> Robustness:
    """Writes robustness.parquet, .png and .json, and returns the numbers."""
    from hpcgender.robustness.charts import picture  # and matplotlib, which no other evaluation needs
    from shard_tools.base.figures import as_png

    write_corrupted(directory, predictions.key, corrupted)
    found = robustness(predictions, corrupted)
    write_whole(directory / PICTURE, as_png(picture(found)))
    found.write(directory)
    return found
