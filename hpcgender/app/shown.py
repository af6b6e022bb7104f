"""What the page shows: models, and the evaluations and heat maps of exactly these checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from hpcgender.cam.results import FILE as CAM_FILE
from hpcgender.cam.results import Cam, read_cam
from hpcgender.commands.app import AppConfig
from hpcgender.commands.cam import CamConfig
from hpcgender.data.config import Backend
from hpcgender.evaluate.confidence import ConfidenceBin, confidence_bins
from hpcgender.evaluate.decision import EVALUATIONS
from hpcgender.evaluate.finished import FinishedEvaluation, read_whole
from hpcgender.evaluate.results import FILE as EVALUATION_FILE
from hpcgender.evaluate.results import Age, Evaluation, read_evaluation
from hpcgender.predict.model import Model, load, model_digest
from hpcgender.run_directory import CHECKPOINTS
from shard_tools.base.errors import UserError

Results = TypeVar("Results", Evaluation, Cam)

BACKEND: Backend = "torchvision"
"""Pillow decodes: for one photo DALI takes longer to start."""


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A model and what is known of it."""

    name: str
    """Of its run, or of its file; no other model has the same."""
    checkpoint: Path
    model: Model
    evaluated: tuple[FinishedEvaluation, ...]
    cams: tuple[tuple[Path, Cam], ...]
    bins: tuple[ConfidenceBin, ...]
    """How often a confidence was right in the evaluation `of_gender`; empty without one."""

    @property
    def of_gender(self) -> FinishedEvaluation | None:
        """The first evaluation with scores of gender, without --flip, with which predictions are others."""
        return next((one for one in self.evaluated if one.results.gender and not one.results.options.flip), None)

    @property
    def of_age(self) -> tuple[FinishedEvaluation, Age] | None:
        """The first evaluation with scores of age, and these."""
        unflipped = [one for one in self.evaluated if not one.results.options.flip]
        return next(((one, one.results.age) for one in unflipped if one.results.age), None)


@lru_cache
def opened(config: AppConfig) -> tuple[ShownModel, ...]:
    """The models that the options name, loaded once.

    Raises UserError for what is missing or damaged, and for evaluations and heat maps of other checkpoints.
    """
    checkpoints = config.checkpoints
    names = dict(zip(checkpoints, names_of(checkpoints), strict=True))
    digests = {path: model_digest(path) for path in checkpoints}
    evaluations = [(path, read_evaluation(path)) for path in config.evaluation]
    cams = [(path, read_cam(path)) for path in config.cam]
    given: list[tuple[Path, Evaluation | Cam]] = [*evaluations, *cams]
    for path, found in given:
        if found.checkpoint.digest not in digests.values():
            raise UserError(f"{path} is of another checkpoint, {found.checkpoint.path}: name that, too")
    return tuple(shown_model(names[path], path, digests[path], evaluations, cams) for path in checkpoints)


def names_of(checkpoints: Sequence[Path]) -> list[str]:
    """A name for each checkpoint: its run's, or with the file's where that is not enough, or the whole path."""
    runs = [path.absolute().parents[1].name if path.parent.name == CHECKPOINTS else path.stem for path in checkpoints]
    files = [f"{run}, {path.name}" for run, path in zip(runs, checkpoints, strict=True)]
    names = []
    for run, file, path in zip(runs, files, checkpoints, strict=True):
        names.append(run if runs.count(run) == 1 else file if files.count(file) == 1 else str(path))
    return names


def shown_model(
    name: str,
    checkpoint: Path,
    checksum: str,
    evaluations: Sequence[tuple[Path, Evaluation]],
    cams: Sequence[tuple[Path, Cam]],
) -> ShownModel:
    """A model with its own among the given evaluations and heat maps, and with those in its run's directory."""
    run = checkpoint.absolute().parent.parent
    named = {path: number for number, (path, _) in enumerate(evaluations)}
    mine = own(evaluations, run.glob(f"{EVALUATIONS}/*/{EVALUATION_FILE}"), read_evaluation, checksum)
    mine.sort(key=lambda item: item[1].run.began, reverse=True)
    mine.sort(key=lambda item: (named.get(item[0], len(named)), not fits_temperature(item[1])))
    evaluated = tuple(read_whole(path, one) for path, one in mine)
    maps = own(cams, run.glob(f"{CamConfig.results}/*/{CAM_FILE}"), read_cam, checksum)
    calibrating = next((str(path) for path, one in mine if path in named and fits_temperature(one)), "")
    model = load(checkpoint, evaluation=calibrating, backend=BACKEND, batch_size=1)
    shown = ShownModel(name, checkpoint, model, evaluated, tuple(maps), ())
    if shown.of_gender is None:
        return shown
    decision = model.decision
    return replace(shown, bins=confidence_bins(shown.of_gender.predictions, decision.temperature, decision.threshold))


def fits_temperature(evaluation: Evaluation) -> bool:
    """Whether an evaluation can calibrate its checkpoint."""
    return bool(evaluation.gender and evaluation.gender.temperature and not evaluation.options.flip)


def own(
    given: Sequence[tuple[Path, Results]], files: Iterable[Path], read: Callable[[Path], Results], checksum: str
) -> list[tuple[Path, Results]]:
    """The given results of a checkpoint, then those in the directories of some files, each directory once."""
    found = [(path, one) for path, one in given if one.checkpoint.digest == checksum]
    there = {path.resolve() for path, _ in found}
    for directory in sorted(file.parent for file in files):
        with suppress(UserError):  # of another version, which nobody asked for
            if directory.resolve() not in there and (one := read(directory)).checkpoint.digest == checksum:
                found.append((directory, one))
    return found
