"""What an exported model says of itself, as texts by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcgender.checkpoint import Trained
from hpcgender.evaluate.decision import Decision
from hpcgender.models.config import LARGEST_IMAGE
from hpcgender.version import __version__
from shard_tools.align.recipe import Recipe
from shard_tools.base.documents import restored
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.parsing import load_json

CARD = (
    "Predicts annotated binary gender, and age if trained for it, of a square image of a face, cropped as the training "
    "images were. For research on how classifiers behave and for whom they fail; not for identifying, sorting or "
    "judging people: no decision about a person may rest on it. Labels come from annotators, records or names; people "
    "who are neither female nor male are not represented. Scores on other images than those of its evaluation are "
    "usually lower, and probabilities less calibrated."
)
DIRECTORIES = re.compile(r"(?<![^\s,=('\"])/(?:[^\s,:=/]+/)*(?=[^\s/])")
"""What stands before the names of absolute paths, wherever in a text they are."""
INPUT = "square images of faces, RGB"


def metadata(trained: Trained, digest: str, decision: Decision) -> dict[str, str]:
    """The names and values; `checkpoint` is all that the checkpoint says of itself, as JSON."""
    return {
        "hpcgender": __version__,
        "model": trained.name,
        "classes": json.dumps(trained.classes),
        "tasks": json.dumps(trained.config.tasks),
        "image_size": str(trained.image_size),
        "input": INPUT,
        "crop": json.dumps(trained.crop and asdict(trained.crop)),
        "temperature": repr(decision.temperature),
        "threshold_log_odds": repr(decision.threshold),
        "calibrated_by": decision.calibrated_by,
        "threshold_from": decision.threshold_from,
        "digest": digest,
        "manifest": trained.about["manifest"],
        "model_card": CARD,
        "checkpoint": json.dumps(without_directories(dict(trained.about)), default=str),
    }


def without_directories(value: Any) -> Any:
    """What a checkpoint says of itself, with absolute paths shortened to names, also within a text."""
    if isinstance(value, Mapping):
        return {name: without_directories(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_directories(inner) for inner in value]
    if isinstance(value, Path):
        return value.name
    return DIRECTORIES.sub("", value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What of the metadata decides how the model is used."""

    classes: tuple[str, ...]
    tasks: tuple[str, ...]
    image_size: int
    """Pixels of a side."""
    crop: Recipe | None
    temperature: float
    threshold_log_odds: float
    calibrated_by: str
    """Empty without a temperature."""
    threshold_from: str
    digest: str
    """Of the checkpoint that was exported, which its evaluations refer to."""


def read_metadata(texts: Mapping[str, str], path: Path) -> Exported:
    """What `metadata` wrote into a file; UserError if it is damaged, or of another program."""
    again = "export it again"
    if "hpcgender" not in texts:
        raise UserError(f"{path} is no model of hpcgender export --format onnx: give one, or a checkpoint")
    try:
        content = {
            **{name: load_json(texts[name]) for name in ("classes", "tasks", "image_size", "crop")},
            **{name: float(texts[name]) for name in ("temperature", "threshold_log_odds")},
            **{name: texts[name] for name in ("calibrated_by", "threshold_from", "digest")},
        }
    except KeyError as error:
        raise UserError(f"{path} is damaged (it has no metadata {error}): {again}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged (its metadata: {one_line(error)}): {again}") from None
    found = restored(Exported, content, path, again)
    if not 1 <= found.image_size <= LARGEST_IMAGE or not found.temperature > 0:
        raise UserError(f"{path} is damaged (image_size or temperature is out of range): {again}")
    return found
