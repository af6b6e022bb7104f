"""What a report is made of: the runs, evaluations, heat maps and jobs that the named directories lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcgender.cam.results import FILE as CAM_FILE
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.packs import manifests_in
from hpcgender.evaluate.results import FILE as EVALUATION_FILE
from hpcgender.evaluate.results import Evaluation, read_evaluation
from hpcgender.run_directory import CONFIG_JSON, STUDY_TOML, read_epochs
from jobs.records import Submission, read_submission
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.documents import read_json
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training run, as its directory has it."""

    directory: Path
    options: dict[str, Any]
    """The resolved configuration, `manifest`, which identifies its data, and `leaks`, if its data sets share images."""
    records: tuple[dict[str, Any], ...]
    """An `EpochRecord` for each epoch, as JSON has them."""

    @property
    def name(self) -> str:
        """That of its directory; of a run of a study with the study's, as table/resnet18-seed0."""
        directory = self.directory.resolve()
        of_study = (directory.parent / STUDY_TOML).is_file()
        return f"{directory.parent.name}/{directory.name}" if of_study else directory.name

    @property
    def seconds(self) -> float:
        """Time spent in epochs, seconds."""
        return float(sum(record["seconds"] for record in self.records))

    @property
    def peak_memory_mb(self) -> float | None:
        """Largest peak memory of a process, MB; None before the first epoch."""
        return max((float(record["peak_memory_mb"]) for record in self.records), default=None)

    @property
    def images_per_s(self) -> float | None:
        """Training images per second of all processes together: the median epoch's."""
        speeds = sorted(float(record["images_per_s"]) for record in self.records)
        return speeds[len(speeds) // 2] if speeds else None


@dataclass
class Part:
    """A model and all that is known of it. Directories of evaluations and heat maps are in order, each once."""

    name: str
    run: TrainingRun | None
    """None if its directory no longer exists."""
    evaluations: dict[Path, Evaluation] = field(default_factory=dict)
    cams: list[Path] = field(default_factory=list)
    """Directories of heat maps."""


def find_parts(paths: Sequence[Path]) -> list[Part]:
    """The models that directories lead to, in their order; UserError for a directory of another kind."""
    parts: dict[str, Part] = {}
    for path in paths:
        if (path / EVALUATION_FILE).is_file():
            add_evaluation(parts, path)
        elif is_run(path):
            add_run(parts, path)
        else:
            raise UserError(
                f"{path} is neither a run nor an evaluation: it has no {CONFIG_JSON} and no {EVALUATION_FILE}"
            )
    return list(parts.values())


def add_run(parts: dict[str, Part], path: Path) -> None:
    run = read_run(path)
    part = parts.setdefault(str(path.resolve()), Part(run.name, run))
    found = sorted((path / EvaluateConfig.results).glob(f"*/{EVALUATION_FILE}"))
    evaluations = {file.parent: read_evaluation(file.parent) for file in found}
    for directory in sorted(evaluations, key=lambda directory: of_other_data(evaluations[directory])):
        add_once(part, directory, evaluations[directory])
    for file in sorted((path / CamConfig.results).glob(f"*/{CAM_FILE}")):
        add_cam(part, file.parent)


def of_other_data(evaluation: Evaluation) -> bool:
    """Whether the model was trained on another data set: such evaluations come last."""
    return evaluation.data.manifest not in manifests_in(evaluation.checkpoint.manifest)


def add_evaluation(parts: dict[str, Part], path: Path) -> None:
    evaluation = read_evaluation(path)
    run = run_of(path, evaluation)
    home = run.directory.resolve() if run else Path(evaluation.checkpoint.path).parent.parent
    part = parts.setdefault(str(home), Part(home.name or evaluation.checkpoint.model, run))
    add_once(part, path, evaluation)
    heat_maps = home / CamConfig.results / path.resolve().name
    if (heat_maps / CAM_FILE).is_file():
        add_cam(part, heat_maps)


def add_once(part: Part, path: Path, evaluation: Evaluation) -> None:
    if path.resolve() not in {known.resolve() for known in part.evaluations}:
        part.evaluations[path] = evaluation


def add_cam(part: Part, path: Path) -> None:
    if path.resolve() not in {known.resolve() for known in part.cams}:
        part.cams.append(path)


def is_run(directory: Path) -> bool:
    """Whether a directory is a training run's."""
    return (directory / CONFIG_JSON).is_file()


def read_run(directory: Path) -> TrainingRun:
    """The run in a directory; UserError if its files cannot be read."""
    path = directory / CONFIG_JSON
    again = "train --resume writes it anew"
    options = read_json(path, "name the directory of a run, as runs/train", again)
    if not all(isinstance(options.get(name), str) for name in ("data", "manifest")):
        raise UserError(f"{path} is damaged (data and manifest must be text): {again}")
    return TrainingRun(directory=directory, options=options, records=tuple(read_epochs(directory)))


def run_of(directory: Path, evaluation: Evaluation) -> TrainingRun | None:
    """The run whose model was evaluated in `directory`, if it still exists."""
    trained_in = Path(evaluation.checkpoint.path).parent.parent
    return next((read_run(run) for run in (trained_in, directory.resolve().parent.parent) if is_run(run)), None)


def read_jobs(directory: Path) -> list[Submission]:
    """The jobs whose records are in a directory of results, by the time of submission."""
    found = [read_submission(record) for record in sorted((directory / SUBMISSIONS).glob("*"))]
    return [submission for submission in found if submission]


def attempts_of(job: Submission) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The start and end events of each attempt of a job; the end is empty while it runs, and after a kill."""
    ends = {event["attempt"]: event for event in job.attempts if event["event"] == "end"}
    return [(event, ends.get(event["attempt"], {})) for event in job.attempts if event["event"] == "start"]
