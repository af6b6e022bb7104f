"""How far a run is, from the last record of its metrics, its scores and the end of its log; nothing is read whole."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAIL = 65_536  # bytes: more than a record of metrics.jsonl, and many lines of a log
_STEP = re.compile(r"^step (\d+)/(\d+) of epoch (\d+)/(\d+) \|.* (\d+) img/s \|", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d+)/(\d+) \|", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run has reached; None is unknown. Accuracies are parts of 1, on the images that it was measured on."""

    epochs_done: float | None = None
    """With the part of the epoch that is under way, as its log said last."""
    epochs: int | None = None
    accuracy: float | None = None
    age_mae: float | None = None
    """Years."""
    images_per_s: float | None = None
    eta: float | None = None
    """Seconds that the training still takes."""


def read_progress(results: Path, log: str, running: bool, now: float) -> Progress:
    """The progress of the run in a directory of results; `log` is its job's, of which an epoch under way is known."""
    metrics = results / "metrics.jsonl"
    if (record := last_record(metrics)) is None:
        if scores := _read_scores(results / "scores.json"):
            return Progress(accuracy=scores.get("accuracy"), age_mae=scores.get("age_mae"))
        return _under_way(Progress(), tail(Path(log))) if running and log else Progress()
    val = record.get("val") or {}
    eta = record.get("eta")
    if running and eta is not None:
        eta = max(0.0, eta - (now - metrics.stat().st_mtime))
    progress = Progress(
        epochs_done=record.get("epoch"),
        epochs=record.get("epochs"),
        accuracy=val.get("accuracy"),
        age_mae=val.get("age_mae"),
        images_per_s=record.get("images_per_s"),
        eta=eta,
    )
    return _under_way(progress, tail(Path(log))) if running and log else progress


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole record of a file of JSON lines; None if there is none."""
    for line in reversed(tail(path).splitlines()):
        try:
            record = json.loads(line)
        except ValueError:  # torn by a kill, or the tail's first
            continue
        if isinstance(record, dict):
            return record
    return None


def tail(path: Path) -> str:
    """The end of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _under_way(progress: Progress, log: str) -> Progress:
    step = last(_STEP, log)
    epoch = last(_EPOCH, log)
    if not step or (epoch and epoch.start() > step.start()):
        return progress
    done, steps, number, epochs, speed = map(int, step.groups())
    return Progress(
        epochs_done=number - 1 + done / steps,
        epochs=epochs,
        accuracy=progress.accuracy,
        age_mae=progress.age_mae,
        images_per_s=float(speed),
        eta=progress.eta,
    )


def last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of a pattern."""
    found = None
    for found in pattern.finditer(text):  # noqa: B007
        pass
    return found


def _read_scores(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
