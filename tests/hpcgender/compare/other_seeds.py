"""Evaluations as those of other seeds, for tests of models that have several."""

from __future__ import annotations

import json
from pathlib import Path


def of_seed(directory: Path, seed: int, run: Path) -> Path:
    """Makes an evaluation that of another seed's checkpoint, the best of `run`; returns its directory."""
    file = directory / "evaluation.json"
    content = json.loads(file.read_text())
    content["checkpoint"]["options"]["seed"] = seed
    content["checkpoint"]["path"] = str(run / "checkpoints" / "best.pt")
    content["checkpoint"]["digest"] = f"{seed:032x}"
    file.write_text(json.dumps(content))
    return directory
