"""Evaluation of a checkpoint: what it says of each image, all scores with their intervals, and the mistakes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcgender.checkpoint import digest
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.evaluate import results
from hpcgender.evaluate.age import age_errors, age_scores
from hpcgender.evaluate.calibration import calibration, fit_temperature
from hpcgender.evaluate.errors import LIST, SHEET, write_errors
from hpcgender.evaluate.facts import checkpoint_facts, run_facts
from hpcgender.evaluate.gender import gender_scores
from hpcgender.evaluate.groups import columns_of, group_tables
from hpcgender.evaluate.inputs import Inputs, open_inputs, other_split
from hpcgender.evaluate.predictions import Predictions, keys_of, read_predictions, write_predictions
from hpcgender.evaluate.resample import count_subjects
from hpcgender.evaluate.results import Evaluation, Temperature, read_evaluation
from hpcgender.evaluate.said import predictions_of
from hpcgender.evaluate.summary import summary
from hpcgender.evaluate.table import read_columns
from shard_tools.base.errors import UserError


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates as `config` says; rank 0 writes the files of results.py and prints the most important numbers."""
    with open_inputs(config) as inputs:
        check_tasks(config, inputs)
        keys = keys_of(inputs.loader.index)
        more = read_columns(config.table, config.by, keys) if config.table else {}
        began, images = time.time(), len(inputs.loader.index)
        predictions = predictions_of(inputs, config.flip)
        fitted_on = fitting_predictions(config, inputs)
        seconds = time.time() - began
        if predictions is None:
            return
        if config.temperature_split and fitted_on is not None:
            images += len(fitted_on)
        run = run_facts(inputs.ranks, began, seconds, images / seconds)
        write_results(config, inputs, replace(predictions, more=more), fitted_on, run)


def check_tasks(config: EvaluateConfig, inputs: Inputs) -> None:
    """Raises UserError for what is asked of gender if the model tells age alone, or a temperature of another model."""
    if "gender" not in inputs.trained.config.tasks:
        for option, given in (("--errors", config.errors), ("--temperature-from", config.temperature_from)):
            if given:
                raise UserError(f"{option} is about gender, and {config.checkpoint} tells age alone: leave it out")
    if config.temperature_from and not config.temperature_split:
        other = read_evaluation(Path(config.temperature_from)).checkpoint
        if other.digest != digest(config.checkpoint):
            raise UserError(
                f"{config.temperature_from} evaluated another checkpoint, {other.path}: a temperature holds for its own"
            )


def fitting_predictions(config: EvaluateConfig, inputs: Inputs) -> Predictions | None:
    """What a temperature is to be fitted on, on rank 0; None if there is to be none, and on the others."""
    if config.temperature_split:
        with other_split(inputs, config, config.temperature_split) as others:
            return predictions_of(others, config.flip)
    if config.temperature_from and inputs.ranks.is_first:
        return read_predictions(Path(config.temperature_from))
    return None


def write_results(
    config: EvaluateConfig, inputs: Inputs, predictions: Predictions, fitted_on: Predictions | None, run: results.Run
) -> None:
    """Works out all numbers, writes the files, evaluation.json last, and prints what they say."""
    out = config.out_dir
    out.mkdir(parents=True, exist_ok=True)
    (out / results.FILE).unlink(missing_ok=True)
    write_predictions(out, predictions)
    wrong = None
    if config.errors:
        title = f"Mistakes of {inputs.trained.name} in {config.split} of {config.data.resolve().name}"
        wrong = write_errors(out, predictions, inputs.manifest, config.split, title)
    evaluation = evaluation_of(config, inputs, predictions, fitted_on, run)
    evaluation.write(out)
    print("\n".join(summary(evaluation)))
    print(f"per image: {out / 'predictions.csv'} and .parquet, all numbers: {out / results.FILE}")
    if wrong is not None:
        print(f"{wrong} mistakes: {out / LIST}" + (f", to look at: {out / SHEET}" if wrong else ""))


def evaluation_of(
    config: EvaluateConfig, inputs: Inputs, predictions: Predictions, fitted_on: Predictions | None, run: results.Run
) -> Evaluation:
    """All numbers, from predictions sorted by key."""
    gender, age = None, None
    tables: list[results.GroupTable] = []
    told = predictions.rows(predictions.gender_known)
    if len(told):
        gender = gender_scores(told, temperature_of(config, told, fitted_on))
        right = (told.prediction == told.label).astype(np.float64)
        tables += group_tables(told, columns_of(told), right, "accuracy")
    aged = predictions.rows(predictions.age_known)
    if len(aged):
        age = age_scores(aged)
        tables += group_tables(aged, columns_of(aged), np.abs(age_errors(aged)), "age_mae")
    return Evaluation(
        checkpoint=checkpoint_facts(config.checkpoint, inputs.trained),
        data=data_facts(config, inputs, predictions),
        options=results.Options(batch_size=config.batch_size, backend=config.backend, flip=config.flip),
        gender=gender,
        age=age,
        tables=tuple(tables),
        run=run,
    )


def temperature_of(config: EvaluateConfig, told: Predictions, fitted_on: Predictions | None) -> Temperature | None:
    """The temperature that is best for `fitted_on`, and what it makes of the calibration of `told`."""
    if fitted_on is None:
        return None
    known = fitted_on.rows(fitted_on.gender_known)
    value = fit_temperature(known.logit, known.label == 1)
    if value is None:
        right = int(np.count_nonzero(known.prediction == known.label))
        print(f"no temperature is best for {config.temperature_from}, where {right} of {len(known)} are told right")
        return None
    return Temperature(
        value=value,
        fitted_on=config.temperature_split or str(Path(config.temperature_from).resolve()),
        images=len(known),
        calibration=calibration(told.logit.astype(np.float64) / value, told.label == 1),
    )


def data_facts(config: EvaluateConfig, inputs: Inputs, predictions: Predictions) -> results.Data:
    """Which images they are."""
    there = predictions.rows(predictions.decoded)
    return results.Data(
        path=str(config.data.resolve()),
        source=inputs.manifest.source,
        manifest=inputs.manifest.sha256,
        split=config.split,
        images=len(predictions),
        left_out=len(predictions) - len(there),
        classes=inputs.manifest.classes,
        labelled={name: int(np.sum(there.label == code)) for code, name in enumerate(inputs.manifest.classes)},
        aged=int(np.count_nonzero(~np.isnan(there.age))),
        subjects=count_subjects(there.subject),
    )
