"""Studies of seconds, on drawn faces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, shards: Path) -> Write:
    """Writes `mine.toml` in the test's directory: a study of the smallest network, with a grid and more tables."""

    def write(grid: str, more: str = "", table: str = "grid", **base: object) -> Path:
        options = {
            **{"model": "compact", "image_size": 32, "batch_size": 32, "epochs": 2, "lr": 0.02},
            **{"backend": "torchvision", "data": str(shards), **base},
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        file = tmp_path / "mine.toml"
        file.write_text("\n".join(["[base]", *lines, f"[{table}]", grid, more, ""]))
        return file

    return write


def epochs(runs: Path, trial: str) -> list[int]:
    """The epochs that a run has records of."""
    return [json.loads(line)["epoch"] for line in (runs / "mine" / trial / "metrics.jsonl").read_text().splitlines()]


def jobs_of(runs: Path, trial: str) -> list[str]:
    """The names of the records of a run's jobs."""
    return sorted(path.name for path in (runs / "mine" / trial / "submissions").iterdir())
