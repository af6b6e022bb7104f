"""What a report is made of: the runs, evaluations and heat maps that the named directories lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcgender.cam.results import FILE as CAM_FILE
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.evaluate.results import FILE as EVALUATION_FILE
from hpcgender.evaluate.results import Evaluation, read_evaluation
from hpcgender.report.runs import TrainingRun, is_run, read_run, run_of
from shard_tools.base.errors import UserError


@dataclass
class Part:
    """A model and all that is known of it. Directories of evaluations and heat maps are in order, each once."""

    name: str
    run: TrainingRun | None
    """None if its directory is no longer there."""
    evaluations: dict[Path, Evaluation] = field(default_factory=dict)
    cams: list[Path] = field(default_factory=list)
    """Directories of heat maps."""


def find_parts(paths: Sequence[Path]) -> list[Part]:
    """The models that directories lead to, in their order; UserError for a directory that is nothing of the kind."""
    parts: dict[str, Part] = {}
    for path in paths:
        if (path / EVALUATION_FILE).is_file():
            add_evaluation(parts, path)
        elif is_run(path):
            add_run(parts, path)
        else:
            raise UserError(
                f"{path} is neither a run nor an evaluation: it has no config.json and no {EVALUATION_FILE}"
            )
    return list(parts.values())


def add_run(parts: dict[str, Part], path: Path) -> None:
    run = read_run(path)
    part = parts.setdefault(str(path.resolve()), Part(run.name, run))
    found = sorted((path / EvaluateConfig.results).glob(f"*/{EVALUATION_FILE}"))
    evaluations = {file.parent: read_evaluation(file.parent) for file in found}
    for directory in sorted(evaluations, key=lambda directory: elsewhere(evaluations[directory])):
        add_once(part, directory, evaluations[directory])
    for file in sorted((path / CamConfig.results).glob(f"*/{CAM_FILE}")):
        add_cam(part, file.parent)


def elsewhere(evaluation: Evaluation) -> bool:
    """Whether it is of other data than the model was trained on: such evaluations come last."""
    return evaluation.data.manifest != evaluation.checkpoint.manifest


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
