"""Evaluation of a checkpoint: each image's prediction, all scores with their intervals, and the mistakes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hpcgender.checkpoint_file import KeptTemperature, digest, keep_temperature
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.evaluate import results
from hpcgender.evaluate.age import age_errors, age_loss, age_scores
from hpcgender.evaluate.calibration import calibration, fit_temperature
from hpcgender.evaluate.errors import LIST, SHEET, write_errors
from hpcgender.evaluate.gender import gender_scores
from hpcgender.evaluate.groups import columns_of, group_tables
from hpcgender.evaluate.predict_split import SplitPass
from hpcgender.evaluate.predictions import Predictions, keys_of, read_predictions, write_predictions
from hpcgender.evaluate.resample import count_subjects
from hpcgender.evaluate.results import Evaluation, Temperature, TrainedOn, read_evaluation
from hpcgender.evaluate.summary import summary
from hpcgender.evaluate.table import read_columns, shared_keys
from hpcgender.evaluate.trained_on import Overlap, find_overlap, warning
from hpcgender.inference.facts import WORK, ComputeFacts
from hpcgender.inference.progress import remove_state
from hpcgender.inference.session import Session, open_session
from hpcgender.robustness.corrupted import Corrupted, CorruptedPass
from hpcgender.robustness.corruptions import SEVERITIES
from hpcgender.robustness.results import FILE as ROBUSTNESS
from hpcgender.robustness.tables import robustness_lines
from hpcgender.robustness.write import PICTURE, check_numbers, remove_robustness, write_robustness
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural


def evaluate(config: EvaluateConfig) -> int:
    """Evaluates as `config` says; rank 0 writes the files of results.py and prints the most important numbers.

    Returns 0, or REQUEUE if a stop was requested before the end: the same command then resumes.
    """
    with open_session(config) as session:
        check_tasks(session)
        if session.ranks.is_first and (config.out_dir / results.FILE).exists():
            times = 1 + len(SEVERITIES) * len(config.corruptions)
            again = f", {times} predictions of each image" if config.corruptions else ""
            print(f"{config.out_dir} holds this evaluation already: it is computed again{again}", flush=True)
        index = session.manifest.index(config.split)
        overlap = trained_images(session)
        keys = keys_of(index)
        more = read_columns(config.table, config.by, keys, shared_keys(session.manifest)) if config.table else {}
        began = time.time()
        passes = []
        for split in (config.split, config.temperature_split):
            if split and not session.stop.reason:
                passes.append(SplitPass(session, split))
                passes[-1].run()
        corrupted = []
        for name in config.corruptions:
            if not session.stop.reason:
                corrupted.append(CorruptedPass(session, config.split, name))
                corrupted[-1].run()
        if session.ranks.is_first and not session.stop.reason:
            seconds = time.time() - began
            run = session.compute_facts(began, seconds, sum(one.computed for one in (*passes, *corrupted)))
            predictions, *others = [split_pass.predictions() for split_pass in passes]
            fitted_on = others[0] if others else None
            if config.temperature_from and not config.temperature_split:
                fitted_on = read_predictions(Path(config.temperature_from))
            predictions = replace(predictions, more=more)
            of_corruptions = {one.name: one.corrupted() for one in corrupted}
            if overlap.facts.left_out:
                kept = ~overlap.trained[np.argsort(index["key"], kind="stable")]
                predictions = predictions.rows(kept)
                of_corruptions = {name: one.rows(kept) for name, one in of_corruptions.items()}
            check_numbers(predictions, of_corruptions)
            lines = write_results(session, predictions, of_corruptions, fitted_on, run, overlap.facts)
            remove_state(config.out_dir / WORK)  # also that of a split on which an earlier start fitted a temperature
            print("\n".join(lines))
            if config.keep_temperature:
                keep(session, read_evaluation(config.out_dir))
    return session.exit_code


def trained_images(session: Session[EvaluateConfig]) -> Overlap:
    """Which of the images were trained on; rank 0 prints it if there are any, or if it cannot be known."""
    config, about = session.config, session.trained.about
    overlap = find_overlap(
        about["config"],
        about["manifest"],
        session.manifest,
        config.split,
        leave_out=config.without_trained,
    )
    if session.ranks.is_first and (line := warning(overlap.facts)):
        print(line, flush=True)
    return overlap


def check_tasks(session: Session[EvaluateConfig]) -> None:
    """Raises UserError for options about gender if the model predicts age alone, or a temperature of another model."""
    config = session.config
    if "gender" not in session.trained.config.tasks:
        for option, given in (("--errors", config.errors), ("--temperature-from", config.temperature_from)):
            if given:
                raise UserError(f"{option} is about gender, and {config.checkpoint} predicts age alone: leave it out")
    if config.temperature_from and not config.temperature_split:
        other = read_evaluation(Path(config.temperature_from)).checkpoint
        if other.digest != digest(config.checkpoint):
            raise UserError(
                f"{config.temperature_from} evaluated another checkpoint, {other.path}: a temperature holds for its own"
            )


def keep(session: Session[EvaluateConfig], evaluation: Evaluation) -> None:
    """Keeps the temperature of an evaluation in the checkpoint."""
    path, temperature = session.config.checkpoint, evaluation.gender and evaluation.gender.temperature
    if not temperature:  # and a line of the log has why
        return
    split = session.config.temperature_split
    on = f"{split} of {session.manifest.root.resolve().name}" if split else Path(temperature.fitted_on).name
    kept = KeptTemperature(value=temperature.value, fitted_on=f"{plural(temperature.images, 'image')} of {on}")
    keep_temperature(path, evaluation.checkpoint.digest, kept)
    print(f"kept in {path}: temperature {kept.value:.3g}, fitted on {kept.fitted_on}")


def write_results(
    session: Session[EvaluateConfig],
    predictions: Predictions,
    corrupted: Mapping[str, Corrupted],
    fitted_on: Predictions | None,
    run: ComputeFacts,
    trained_on: TrainedOn,
) -> list[str]:
    """Computes all numbers and writes the files, evaluation.json last; returns the lines of a summary."""
    config, out = session.config, session.config.out_dir
    out.mkdir(parents=True, exist_ok=True)
    (out / results.FILE).unlink(missing_ok=True)
    remove_robustness(out)
    write_predictions(out, predictions)
    wrong = None
    if config.errors:
        title = f"Mistakes of {session.trained.name} in {config.split} of {config.data.resolve().name}"
        wrong = write_errors(out, predictions, session.manifest, config.split, title)
    evaluation = evaluation_of(session, predictions, fitted_on, run, trained_on)
    lines = summary(evaluation)
    if corrupted:
        temperature = evaluation.gender.temperature if evaluation.gender else None
        found = write_robustness(out, predictions, corrupted, temperature.value if temperature else None)
        lines += robustness_lines(found)
        lines.append(f"of corrupted images: {out / ROBUSTNESS}, a picture: {out / PICTURE}")
    evaluation.write(out)
    lines.append(f"per image: {out / 'predictions.csv'} and .parquet, all numbers: {out / results.FILE}")
    if wrong is not None:
        lines.append(f"{plural(wrong, 'mistake')}: {out / LIST}" + (f", to look at: {out / SHEET}" if wrong else ""))
    return lines


def evaluation_of(
    session: Session[EvaluateConfig],
    predictions: Predictions,
    fitted_on: Predictions | None,
    run: ComputeFacts,
    trained_on: TrainedOn,
) -> Evaluation:
    """All numbers, from predictions sorted by key."""
    config = session.config
    gender, age = None, None
    losses: dict[str, float] = {}
    tables: list[results.GroupTable] = []
    labelled = predictions.rows(predictions.gender_known)
    if len(labelled):
        gender = gender_scores(labelled, temperature_of(config, labelled, fitted_on))
        losses["gender"] = gender.calibration.log_loss
        correct = (labelled.prediction == labelled.label).astype(np.float64)
        tables += group_tables(labelled, columns_of(labelled), correct, "accuracy")
    aged = predictions.rows(predictions.age_known)
    if len(aged):
        age = age_scores(aged)
        losses["age"] = age_loss(aged, session.trained.config.age_loss)
        tables += group_tables(aged, columns_of(aged), np.abs(age_errors(aged)), "age_mae")
    return Evaluation(
        checkpoint=session.checkpoint_facts(),
        data=data_facts(session, predictions, trained_on),
        options=results.Options(
            batch_size=config.batch_size, backend=config.backend, precision=config.precision, flip=config.flip
        ),
        gender=gender,
        age=age,
        losses=losses,
        tables=tuple(tables),
        run=run,
    )


def temperature_of(config: EvaluateConfig, labelled: Predictions, fitted_on: Predictions | None) -> Temperature | None:
    """The temperature that is best for `fitted_on`, and the calibration of `labelled` with it."""
    if fitted_on is None:
        return None
    known = fitted_on.rows(fitted_on.gender_known)
    value = fit_temperature(known.logit, known.label == 1)
    if value is None:
        correct = int(np.count_nonzero(known.prediction == known.label))
        print(
            f"no temperature is best for {config.temperature_from}: "
            f"{correct:,} of {plural(len(known), 'image')} classified correctly"
        )
        return None
    return Temperature(
        value=value,
        fitted_on=config.temperature_fitted_on,
        images=len(known),
        calibration=calibration(labelled.logit.astype(np.float64) / value, labelled.label == 1),
    )


def data_facts(session: Session[EvaluateConfig], predictions: Predictions, trained_on: TrainedOn) -> results.Data:
    """Which images they are."""
    decoded = predictions.rows(predictions.decoded)
    return results.Data(
        **{**asdict(session.split_facts(len(predictions) - len(decoded))), "images": len(predictions)},
        trained_on=trained_on,
        labelled={name: int(np.sum(decoded.label == code)) for code, name in enumerate(session.manifest.classes)},
        aged=int(np.count_nonzero(~np.isnan(decoded.age))),
        subjects=count_subjects(decoded.subject),
    )
