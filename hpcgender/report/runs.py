"""A training run, as its directory tells it: its options, its epochs, and the jobs that worked on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgender.evaluate.results import Evaluation
from hpcgender.train.log import read_records
from jobs.records import FOLDER, Submission, read_submission
from shard_tools.base.errors import UserError, one_line

CONFIG, METRICS = "config.json", "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run's directory."""

    directory: Path
    options: dict[str, Any]
    """The resolved configuration, and `manifest`, the SHA-256 of the manifest of its data."""
    records: tuple[dict[str, Any], ...]
    """An `EpochRecord` for each epoch, as JSON has them."""

    @property
    def name(self) -> str:
        return self.directory.resolve().name

    @property
    def seconds(self) -> float:
        """Time spent in epochs, seconds."""
        return float(sum(record["seconds"] for record in self.records))

    @property
    def peak_memory_mb(self) -> float | None:
        """The most that a process held, MB; None before the first epoch."""
        return max((float(record["peak_memory_mb"]) for record in self.records), default=None)

    @property
    def images_per_s(self) -> float | None:
        """Training images a second, all processes together: the median epoch's."""
        speeds = sorted(float(record["images_per_s"]) for record in self.records)
        return speeds[len(speeds) // 2] if speeds else None


def is_run(directory: Path) -> bool:
    """Whether a directory is a training run's."""
    return (directory / CONFIG).is_file()


def read_run(directory: Path) -> TrainingRun:
    """The run in a directory; UserError if its files cannot be read."""
    path = directory / CONFIG
    try:
        options = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name the directory of a run, as runs/train") from None
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: {one_line(error)}; go on with the run's --resume to write it anew"
        ) from None
    return TrainingRun(directory=directory, options=options, records=tuple(read_records(directory / METRICS)))


def run_of(directory: Path, evaluation: Evaluation) -> TrainingRun | None:
    """The run that trained what was evaluated in `directory`, if it is still there."""
    trained_in = Path(evaluation.checkpoint.path).parent.parent
    return next((read_run(run) for run in (trained_in, directory.resolve().parent.parent) if is_run(run)), None)


def read_jobs(directory: Path) -> list[Submission]:
    """The jobs whose records are in a directory of results, by the time that they were submitted."""
    try:
        found = [read_submission(record) for record in sorted((directory / FOLDER).glob("*"))]
    except ValueError as error:
        raise UserError(str(error)) from None
    return [submission for submission in found if submission]


def attempts_of(job: Submission) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The beginning and the end of each time that a job ran; the end is empty while it runs, and of one killed."""
    ends = {event["attempt"]: event for event in job.attempts if event["event"] == "end"}
    return [(event, ends.get(event["attempt"], {})) for event in job.attempts if event["event"] == "start"]
