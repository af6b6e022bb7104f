"""Writes what an evaluation with --corrupt adds to the directory of its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpcgender.evaluate.predictions import Predictions
from hpcgender.robustness.corrupted import FILE as PARQUET
from hpcgender.robustness.corrupted import Corrupted, write_corrupted
from hpcgender.robustness.results import FILE as JSON
from hpcgender.robustness.results import Robustness
from hpcgender.robustness.scores import robustness
from shard_tools.base.errors import UserError
from shard_tools.base.files import write_whole
from shard_tools.base.text import plural

PICTURE = "robustness.png"


def remove_robustness(directory: Path) -> None:
    """Removes what an earlier evaluation with --corrupt has left."""
    for name in (JSON, PARQUET, PICTURE):
        (directory / name).unlink(missing_ok=True)


def check_numbers(predictions: Predictions, corrupted: Mapping[str, Corrupted]) -> None:
    """Raises UserError where a model gives no number for a corrupted image, and one for the image as it is."""
    for name, one in corrupted.items():
        for clean, values in ((predictions.logit, one.logit), (predictions.age_prediction, one.age)):
            missing = ~np.isnan(clean) & np.isnan(values).any(1)
            if count := int(np.count_nonzero(missing)):
                raise UserError(
                    f"the model gives no number for {plural(count, 'image')} with {name}, the first one "
                    f"{predictions.key[missing.argmax()]}: evaluate with --precision fp32 and another --out"
                )


def write_robustness(
    directory: Path, predictions: Predictions, corrupted: Mapping[str, Corrupted], temperature: float | None
) -> Robustness:
    """Writes robustness.parquet, .png and .json, and returns the numbers."""
    from hpcgender.robustness.charts import picture  # and matplotlib, which no other evaluation needs
    from shard_tools.base.figures import as_png

    write_corrupted(directory, predictions.key, corrupted)
    found = robustness(predictions, corrupted, temperature)
    write_whole(directory / PICTURE, as_png(picture(found)))
    found.write(directory)
    return found
