"""What a report says of an evaluation: scores with their intervals, groups, calibration, and the mistakes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hpcgender.evaluate.errors import SHEET, faces_of, mistakes
from hpcgender.evaluate.predictions import Predictions, read_predictions
from hpcgender.evaluate.results import Age, Evaluation, Gender, GroupTable, Score
from hpcgender.report.charts import confusion, cumulative_ages, forest, reliability, roc, score_distributions
from hpcgender.report.figures import as_svg, grid
from hpcgender.report.training import manifest_of
from hpcgender.report.words import NOTHING, interval, number, percent, time_spent, when
from shard_tools.base.page import card, fact_list, text_table
from shard_tools.inspect.page import figure as face_figure

METHODS = {"wilson": "Wilson", "bootstrap": "bootstrap of subjects"}
FEW = "few"
MIRRORED = ", each also mirrored"
NO_SUBJECTS = "bootstrap of images"


def evaluation_cards(directory: Path, evaluation: Evaluation, faces: int) -> str:
    """The cards of an evaluation."""
    predictions = read_predictions(directory)
    left = right = ""
    drawn: dict[str, Figure] = {}
    if gender := evaluation.gender:
        left, right = metrics_card(evaluation, gender), classes_card(gender)
        drawn["confusion"] = confusion(gender)
        drawn["scores"] = score_distributions(predictions, gender)
        if gender.roc:
            drawn["ROC curve"] = roc(gender)
        drawn["calibration"] = reliability(gender)
    if age := evaluation.age:
        right += ages_card(evaluation, age)
        drawn["cumulative score of the age"] = cumulative_ages(age)
    cards = card("measured on", fact_list(measured_facts(evaluation)))
    cards += f'<div class="side">{"".join(f"<div>{side}</div>" for side in (left, right) if side)}</div>\n'
    cards += card("what it says", grid(drawn))
    cards += f'<div class="cards">\n{"".join(group_card(evaluation, table) for table in evaluation.tables)}</div>\n'
    return cards + errors_card(directory, evaluation, predictions, faces)


def measured_facts(evaluation: Evaluation) -> dict[str, str]:
    """Images, checkpoint, options and circumstances."""
    data, checkpoint, options, run = evaluation.data, evaluation.checkpoint, evaluation.options, evaluation.run
    labelled = ", ".join(f"{count:,} {name}" for name, count in data.labelled.items())
    same = (
        "the data it was trained on; this split was held out" if data.split != "train" else "the images it learnt from"
    )
    facts = {
        "data": f"{data.path}, {data.split}: {data.images:,} images ({labelled})",
        "subjects": f"{data.subjects:,}" if data.subjects else "not known",
        "ages": f"known of {data.aged:,} images" if data.aged else "not known",
        "left out": f"{data.left_out:,} images that do not decode" if data.left_out else "",
        "relation": same if data.manifest == checkpoint.manifest else "other data than it was trained on",
        "manifest": data.manifest,
        "checkpoint": f"{checkpoint.path}, epoch {checkpoint.epoch}, step {checkpoint.step}",
        "its digest": checkpoint.digest,
        "network": f"{checkpoint.model}, images of {checkpoint.image_size} px{MIRRORED if options.flip else ''}",
        "decoded by": f"{options.backend}, in batches of {options.batch_size}",
        "evaluated": f"{when(run.began)} in {time_spent(run.seconds)}, {number(run.images_per_s, 0)} images/s",
        "machine": f"{run.device}, {run.world_size} process{'' if run.world_size == 1 else 'es'}"
        + (f", job {run.job}" if run.job else ""),
        "code": ", ".join((*([f"git {run.revision}"] if run.revision else []), *map(" ".join, run.versions.items()))),
    }
    return {name: line for name, line in facts.items() if line}


def method(evaluation: Evaluation, score: Score) -> str:
    """How an interval was found."""
    if score.low != score.low:
        return NOTHING
    return METHODS[score.method] if evaluation.data.subjects or score.method == "wilson" else NO_SUBJECTS


def metrics_card(evaluation: Evaluation, gender: Gender) -> str:
    """The scores of gender."""
    rows = [
        ("accuracy", percent(gender.accuracy.value, 2), interval(gender.accuracy, 2), gender.accuracy),
        (
            "balanced accuracy",
            percent(gender.balanced_accuracy.value, 2),
            interval(gender.balanced_accuracy, 2),
            gender.balanced_accuracy,
        ),
        ("ROC AUC", number(gender.roc_auc.value, 4), interval(gender.roc_auc, 4, of_one=False), gender.roc_auc),
        ("d-prime", number(gender.d_prime.value), interval(gender.d_prime, 2, of_one=False), gender.d_prime),
    ]
    lines = [(name, value, where, method(evaluation, score)) for name, value, where, score in rows]
    if equal := gender.equal_error:
        lines.append(("equal error rate", percent(equal.rate, 2), NOTHING, f"male from {equal.probability:.3f}"))
    lines.append(("calibration error", percent(gender.calibration.ece, 2), NOTHING, "15 bins"))
    lines.append(("log loss", number(gender.calibration.log_loss, 4), NOTHING, "nats"))
    if scaled := gender.temperature:
        where = f"T = {scaled.value:.3f}, from {Path(scaled.fitted_on).name}"
        lines.append(("calibration error, scaled", percent(scaled.calibration.ece, 2), NOTHING, where))
        lines.append(("log loss, scaled", number(scaled.calibration.log_loss, 4), NOTHING, where))
    return card("gender", text_table(("score", "value", "95 %", "how"), lines))


def classes_card(gender: Gender) -> str:
    """Precision, recall and F1 of each class."""
    rows = [
        ("images", *(f"{scores.images:,}" for scores in gender.classes)),
        ("predicted", *(f"{scores.predicted:,}" for scores in gender.classes)),
    ]
    for name in ("precision", "recall", "F1"):
        found = [getattr(scores, name.lower()) for scores in gender.classes]
        rows.append((name, *(f"{percent(score.value)} ({interval(score)})" for score in found)))
    return card("classes", text_table(("", *(scores.name for scores in gender.classes)), rows))


def ages_card(evaluation: Evaluation, age: Age) -> str:
    """The scores of age."""
    rows = [
        (name, f"{score.value:{form}}", interval(score, 2, of_one=False), method(evaluation, score))
        for name, score, form in (
            ("mean absolute error, years", age.mae, ".2f"),
            ("mean error, years", age.mean_error, "+.2f"),
        )
    ]
    rows += [(f"within {years} years", percent(age.cumulative[years]), NOTHING, NOTHING) for years in (5, 10)]
    return card("age", text_table(("score", "value", "95 %", "how"), rows))


def group_card(evaluation: Evaluation, table: GroupTable) -> str:
    """A score by a column: the gap in words, a forest, and the table."""
    of_one = table.measure == "accuracy"
    whole = (
        evaluation.gender.accuracy if of_one and evaluation.gender else evaluation.age.mae if evaluation.age else None
    )
    title = f"{'accuracy' if of_one else 'error of the age'} by {table.column}"
    people, few = (any(values) for values in zip(*((one.subjects, one.small) for one in table.groups), strict=True))
    rows = [
        (
            group.value,
            f"{group.images:,}",
            *([f"{group.subjects:,}"] if people else []),
            percent(group.score.value) if of_one else number(group.score.value),
            interval(group.score, of_one=of_one),
            *([FEW if group.small else ""] if few else []),
        )
        for group in table.groups
    ]
    columns = [table.column, "images", *(["subjects"] if people else []), "accuracy" if of_one else "years", "95 %"]
    columns += [""] if few else []
    picture = forest(table, whole.value) if whole and table.groups else None
    return card(
        title,
        f"<p>{escape(gap_said(table))}</p>",
        f'<div class="chart">{as_svg(picture, f"{title}, {evaluation.data.path}")}</div>' if picture else "",
        text_table(columns, rows),
    )


def gap_said(table: GroupTable) -> str:
    """The largest gap in words, and what was left out of it."""
    of_one = table.measure == "accuracy"
    words = []
    if gap := table.gap:
        size = f"{gap.score.value * 100:.1f} points" if of_one else f"{gap.score.value:.2f} years"
        where = (
            f" (95 %: {interval(gap.score, 1 if of_one else 2, of_one=of_one)})"
            if gap.score.low == gap.score.low
            else ""
        )
        zero = "which is more than chance" if gap.excludes_zero else "which may be chance"
        words.append(f"Largest gap: {gap.best} to {gap.worst}, {size}{where}, {zero}.")
    else:
        words.append("No gap: fewer than two groups are large enough.")
    if any(group.small for group in table.groups):
        words.append("Groups marked few, drawn hollow, are too small to say much and left out of the gap.")
    if table.unknown:
        words.append(f"{table.unknown:,} images have no {table.column}.")
    return " ".join(words)


def errors_card(directory: Path, evaluation: Evaluation, predictions: Predictions, faces: int) -> str:
    """The surest mistakes: their faces if the data is still there, else the sheet that the evaluation drew."""
    wrong = mistakes(predictions)
    if not len(wrong) or not faces:
        return ""
    manifest = manifest_of(Path(evaluation.data.path), evaluation.data.manifest)
    said = f"{len(wrong):,} of {int(predictions.gender_known.sum()):,} images are told wrong"
    if manifest:
        shown = wrong.rows(np.arange(min(faces, len(wrong))))
        figures = "".join(map(face_figure, faces_of(shown, manifest, evaluation.data.split)))
        line = f"{said}: the {len(shown)} that the model is surest of. The colour is the label."
        return card("mistakes", f"<p>{escape(line)}</p>", f'<div class="faces">\n{figures}</div>')
    if (sheet := directory / SHEET).is_file():
        picture = picture_html(sheet.read_bytes(), "image/png", "a sheet of the surest mistakes", "wide")
        return card("mistakes", f"<p>{escape(said)}.</p>", f'<div class="scroll" tabindex="0">{picture}</div>')
    return card(
        "mistakes", f"<p>{escape(f'{said}. The data is not there to show their faces; errors.csv lists them.')}</p>"
    )


def picture_html(content: bytes, kind: str, description: str, style: str = "") -> str:
    """A picture within the page."""
    data = base64.b64encode(content).decode()
    return f'<img class="{style}" src="data:{kind};base64,{data}" alt="{escape(description)}">'


def summary_row(name: str, evaluation: Evaluation) -> Sequence[str]:
    """An evaluation in a line of the first table."""
    gender, age, data = evaluation.gender, evaluation.age, evaluation.data
    gaps = [table.gap for table in evaluation.tables if table.gap and table.measure == "accuracy"]
    widest = max(gaps, key=lambda gap: gap.score.value, default=None)
    return (
        name,
        f"{Path(data.path).name}, {data.split}",
        f"{data.images:,}",
        f"{percent(gender.accuracy.value, 2)} ({interval(gender.accuracy, 2)})" if gender else NOTHING,
        number(gender.roc_auc.value, 4) if gender else NOTHING,
        percent(gender.calibration.ece, 1) if gender else NOTHING,
        f"{number(age.mae.value)} ({interval(age.mae, 2, of_one=False)})" if age else NOTHING,
        f"{widest.score.value * 100:.1f}: {widest.best} to {widest.worst}" if widest else NOTHING,
    )


SUMMARY = ("run", "data", "images", "accuracy (95 %)", "ROC AUC", "ECE", "age MAE (95 %)", "largest gap, points")
