"""What has come of a study: every run by its validation, the best of them, its evaluations, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.study import ResultConfig
from hpcgender.commands.train import numbers
from hpcgender.evaluate.results import FILE, read_evaluation
from hpcgender.run_directory import is_finished, read_epochs
from hpcgender.study.file import Study
from hpcgender.study.metrics import score_of
from hpcgender.study.result_file import FORM, RESULT, Trial
from hpcgender.study.search import PRUNED
from shard_tools.base.documents import read_document, write_document
from shard_tools.base.errors import UserError
from shard_tools.base.text import NOTHING, Table, percent, plural, print_tables

_MOST_COMPARED = 12
"""Models; pairs of many more would take hours."""


def result(config: ResultConfig) -> int:
    """Prints and writes the result of a study; returns 1 if runs of it are missing. UserError if all are."""
    study = config.study()
    trials = [look_at(study, name) for name in study.trials]
    finished = [trial for trial in trials if trial.finished]
    if not finished:
        raise UserError(f"no run of study {study.name} is finished: hpcgender jobs {study.name} says why")
    best = max(finished, key=lambda trial: trial.rank)
    if study.evaluations and study.evaluations.trials == "best":
        if code := evaluate_best(study, best.name):
            return code
        trials = [look_at(study, name) for name in study.trials]
    looked_at = [trial for trial in trials if trial.finished or trial.stopped_early]
    print_result(study, trials, best.name, len(looked_at))
    content = {"study": study.name, "best": best.name, "looked_at": len(looked_at)}
    content |= {"evaluate": wanted_of(study), "compare": [], "compared": [], "trials": list(map(asdict, trials))}
    write_document(study.directory / RESULT, FORM, content)  # before what may fail
    if study.compared:
        compared = compare_all(study, finished)
        write_document(study.directory / RESULT, FORM, {**content, "compare": study.compared, "compared": compared})
    return 0 if len(looked_at) == len(trials) else 1


def is_current(study: Study) -> bool:
    """Whether there is a result of all that the study asks for now, with its runs finished as they are now."""
    if not (study.directory / RESULT).exists():
        return False
    again = f"remove it; hpcgender study result {study.name} writes it again"
    held = read_document(study.directory / RESULT, FORM, again, again)
    if (held.get("evaluate"), held.get("compare")) != (wanted_of(study), list(study.compared)):
        return False
    return {trial["name"]: trial["finished"] for trial in held["trials"]} == {
        name: is_finished(study.directory / name) for name in study.trials
    }


def wanted_of(study: Study) -> dict[str, Any]:
    """The study's table [evaluate]; empty without one."""
    return dict(study.toml.content.get("evaluate", {}))


def look_at(study: Study, name: str) -> Trial:
    """What is known of a trial."""
    results, tasks = study.directory / name, study.trials[name].tasks
    records = read_epochs(results)
    scores = [(score, record) for record in records if (score := score_of(record, tasks)) is not None]
    score, record = max(scores, key=lambda pair: pair[0], default=(None, {}))
    kept = numbers(record.get("val"))
    evaluations = sorted((results / EvaluateConfig.results).glob(f"*/{FILE}"))
    return Trial(
        name=name,
        finished=is_finished(results),
        stopped_early=(results / PRUNED).exists(),
        epochs=len(records),
        score=score,
        val_accuracy=kept.get("accuracy") if "gender" in tasks else None,
        val_age_mae=kept.get("age_mae") if "age" in tasks else None,
        evaluations={path.parent.name: measured(path.parent) for path in evaluations},
    )


def measured(directory: Path) -> float:
    """The accuracy of an evaluation, or without gender minus the MAE of age."""
    evaluation = read_evaluation(directory)
    if evaluation.gender:
        return evaluation.gender.accuracy.value
    return -evaluation.age.mae.value if evaluation.age else math.nan


def evaluate_best(study: Study, trial: str) -> int:
    """Evaluates the best trial where that is not done, and returns the exit code."""
    for call in study.evaluated_on(trial):
        if not (call.results / FILE).is_file():
            from hpcgender.evaluate.evaluation import evaluate  # and torch

            call.check()
            if code := evaluate(call.options):
                return code
    return 0


def compare_all(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Compares the best models by each of the evaluations that are to be compared, and returns those that two have."""
    chosen = best_models(study, trials)
    if len(chosen) < len(trials):
        print(
            f"\ncompared: {plural(len(chosen), 'run')}, those of the {_MOST_COMPARED} models best by validation alone"
        )
    compared = []
    for on in study.compared:
        evaluated = [study.directory / trial for trial in chosen]
        evaluated = [run for run in evaluated if (run / EvaluateConfig.results / on / FILE).is_file()]
        if len(evaluated) > 1:
            from hpcgender.compare.comparison import compare  # and torch, which a study without it need not wait for

            print()
            page = study.directory / f"compare-{on}.html"
            compare(CompareConfig(evaluated=tuple(evaluated), on=on, html=page, csv=page.with_suffix(".csv")))
            compared.append(on)
    return compared


def best_models(study: Study, trials: Sequence[Trial]) -> list[str]:
    """The trials, by name, of the models that are best by the mean of their validation; one model has several seeds."""
    models: dict[str, list[Trial]] = {}
    for trial in trials:
        models.setdefault(repr(replace(study.trials[trial.name], name="run", seed=0)), []).append(trial)
    ranked = sorted(models.values(), key=lambda runs: fmean(run.rank for run in runs), reverse=True)
    chosen = {run.name for runs in ranked[:_MOST_COMPARED] for run in runs}
    return [trial.name for trial in trials if trial.name in chosen]


def print_result(study: Study, trials: Sequence[Trial], best: str, looked_at: int) -> None:
    """Prints the table of trials, the best first, and how the best was chosen."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.evaluations))
    ranked = sorted(trials, key=lambda trial: trial.rank, reverse=True)
    rows = tuple(
        (trial.name, str(trial.epochs), cell(trial.score), *(cell(trial.evaluations.get(name)) for name in names))
        for trial in ranked
    )
    print_tables(Table(("run", "epochs", "validation", *names), rows, max_name=None))
    print(f"\nbest by validation alone: {best}, of {plural(looked_at, 'run')} looked at")
    if early := sum(trial.stopped_early for trial in trials):
        print(f"{plural(early, 'run')} stopped early")
    for name in names:
        count = sum(name in trial.evaluations for trial in trials)
        print(f"{name} was measured for {count} of {plural(len(trials), 'run')}, and chose none")
    if missing := [trial.name for trial in trials if not (trial.finished or trial.stopped_early)]:
        print(f"not finished: {', '.join(missing)}; hpcgender jobs {study.name} says why")


def cell(value: float | None) -> str:
    """A score in the table."""
    if value is None:
        return NOTHING
    return percent(value, 2) if value >= 0 else f"MAE {-value:.2f}"
