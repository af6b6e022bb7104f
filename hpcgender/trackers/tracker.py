"""What a tracker is: it gets the curves of one run, and knows the run again after each resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from shard_tools.base.files import write_whole


class Point(NamedTuple):
    """The metrics of an epoch."""

    step: int
    """Optimizer steps since the start of training."""
    values: Mapping[str, float]
    """By names such as `val/f1/female`, finite."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run that starts or resumes."""

    directory: Path
    id: str
    """The same in all of its attempts, and of no other run."""
    options: Mapping[str, Any]
    """By names such as `augmentation/blur`."""
    step: int
    """Optimizer steps after which it resumes; 0 at its start."""
    past: Sequence[Point]
    """The points up to there."""


class Tracker(Protocol):
    """Receives the points of a run. It is made, called and closed in a thread of its own, and may raise anything."""

    def write(self, point: Point) -> None:
        """Takes the point of an epoch that has ended."""

    def close(self, finished: bool) -> None:
        """Ends: the run is `finished`, or it was stopped and may resume."""


def run_id(directory: Path) -> str:
    """The id of the run in a directory, which is made and kept there when it is first asked for."""
    path = directory / "run-id"
    if not path.exists():
        write_whole(path, f"{uuid4().hex}\n".encode())
    return path.read_text().strip()
