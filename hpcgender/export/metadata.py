"""What an exported model says of itself, as texts by name."""

from __future__ import annotations

import json
from dataclasses import asdict

from hpcgender.checkpoint import Trained
from hpcgender.evaluate.decision import Decision
from hpcgender.version import __version__

CARD = (
    "Predicts annotated binary gender, and age if trained for it, of a square image of a face, cropped as the training "
    "images were. For research on how classifiers behave and for whom they fail; not for identifying, sorting or "
    "judging people: no decision about a person may rest on it. Labels come from annotators, records or names; people "
    "who are neither female nor male are not represented. Scores on other images than those of its evaluation are "
    "usually lower, and probabilities less calibrated."
)
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
        "digest": digest,
        "manifest": str(trained.about.get("manifest", "")),
        "model_card": CARD,
        "checkpoint": json.dumps(dict(trained.about), default=str),
    }
