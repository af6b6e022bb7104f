"""Finds the evaluations to compare, and checks that they are of the same images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.compare.seeds import EvaluatedRun, same_images
from hpcgender.evaluate.results import FILE, Evaluation, read_evaluation
from hpcgender.models.config import ModelConfig, read_model_config
from hpcgender.report.sources import TrainingRun, run_of
from hpcgender.run_directory import runs_named
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender(EvaluatedRun):
    """An evaluated run that is compared; its name is unique among these."""

    model: ModelConfig
    run: TrainingRun | None
    """None if its directory no longer exists."""


def find_contenders(config: CompareConfig) -> list[Contender]:
    """The runs that `config` names, in its order; UserError if one is missing or not of the same images."""
    directories = evaluations(runs_of(config.evaluated, config.on), config.on)
    resolved = [directory.resolve() for directory in directories]
    for place, directory in enumerate(resolved):
        if directory in resolved[:place]:
            raise UserError(f"{directories[place]} is given twice: name each evaluation once")
    found = [read_evaluation(directory) for directory in directories]
    runs = [run_of(directory, evaluation) for directory, evaluation in zip(directories, found, strict=True)]
    contenders = []
    for name, directory, evaluation, run in zip(names(directories, runs), directories, found, runs, strict=True):
        check_same(directories[0], found[0], directory, evaluation)
        model = read_model_config(evaluation.checkpoint.options, directory / FILE, "evaluate again")
        contenders.append(Contender(name=name, directory=directory, results=evaluation, model=model, run=run))
    same_images(contenders)
    return contenders


def runs_of(paths: Sequence[Path], on: str | None) -> list[Path]:
    """The directories that paths name, of a study those of the runs that have an evaluation, the one called `on`."""
    found: list[Path] = []
    for path in paths:
        runs = runs_named((path,))
        evaluated = [run for run in runs if any((run / EvaluateConfig.results).glob(f"{on or '*'}/{FILE}"))]
        if len(runs) > len(evaluated) > 0:
            missing = plural(len(runs) - len(evaluated), "run")
            print(f"{path}: {missing} without {on or 'an evaluation'} left out: evaluate to compare", file=sys.stderr)
        found += evaluated or runs
    return found


def evaluations(paths: Sequence[Path], on: str | None) -> list[Path]:
    """The evaluation's directory for each path: itself, or of a run the one called `on`, or that all runs have."""
    runs = [path for path in paths if not (path / FILE).is_file()]
    names_of = [{found.parent.name for found in (run / EvaluateConfig.results).glob(f"*/{FILE}")} for run in runs]
    for run, of_run in zip(runs, names_of, strict=True):
        if not of_run:
            raise UserError(
                f"no evaluation in {run}: hpcgender evaluate --checkpoint {run}/checkpoints/best.pt --data DIR"
            )
        if on is not None and on not in of_run:
            raise UserError(f"no evaluation {on} in {run}: it has {', '.join(sorted(of_run))}")
    common = {on} if on is not None else set.intersection(*names_of) if names_of else set()
    if runs and not common:
        each = "; ".join(f"{run} has {', '.join(sorted(names))}" for run, names in zip(runs, names_of, strict=True))
        raise UserError(f"no evaluation that all runs have: {each}; evaluate them on the same data and split")
    if len(common) > 1:
        raise UserError(f"the runs have {' and '.join(sorted(common))}: say which with --on")
    return [path / EvaluateConfig.results / next(iter(common)) if path in runs else path for path in paths]


def names(directories: Sequence[Path], runs: Sequence[TrainingRun | None]) -> list[str]:
    """A short name for each: its run's, or where two are alike, its directory relative to their common parent."""
    short = [run.name if run else directory.resolve().name for directory, run in zip(directories, runs, strict=True)]
    count = Counter(short)
    root = os.path.commonpath([directory.resolve() for directory in directories])
    return [
        name if count[name] == 1 else str(directory.resolve().relative_to(root))
        for name, directory in zip(short, directories, strict=True)
    ]


def check_same(first: Path, of_first: Evaluation, other: Path, of_other: Evaluation) -> None:
    """Raises UserError unless two evaluations are of the same split of the same data."""
    ours, theirs = of_first.data, of_other.data
    if ours.split != theirs.split:
        raise UserError(f"{first} is of {ours.split} and {other} of {theirs.split}: compare evaluations of one split")
    if ours.manifest != theirs.manifest:
        raise UserError(
            f"{first} and {other} are of different data, {ours.path} and {theirs.path}: compare evaluations of the same"
        )
