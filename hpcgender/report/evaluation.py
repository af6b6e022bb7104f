"""A report's section about an evaluation: scores with their intervals, groups, calibration, errors and limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hpcgender.data.packs import manifests_in
from hpcgender.evaluate.errors import SHEET, faces_of, mistakes
from hpcgender.evaluate.predictions import Predictions, read_predictions
from hpcgender.evaluate.results import Age, Evaluation, Gap, Gender, GroupTable, Score
from hpcgender.evaluate.summary import against_baseline, chosen_line, leak_lines
from hpcgender.evaluate.trained_on import warning
from hpcgender.report.charts import confusion, cumulative_ages, forest, reliability, roc, score_distributions
from hpcgender.report.sources import Part
from hpcgender.report.training import manifest_of
from hpcgender.report.words import difference, interval, number, time_spent, when
from hpcgender.robustness.charts import chart
from hpcgender.robustness.results import find_robustness
from hpcgender.robustness.tables import harmed_first, losing_most, score_tables
from shard_tools.base.figures import as_svg, charts
from shard_tools.base.text import NOTHING, Table, percent, plural

METHODS = {"wilson": "Wilson", "bootstrap": "bootstrap of subjects"}
"""Of intervals."""
FEW = "few"
MIRRORED = ", each also mirrored"
NO_SUBJECTS = "bootstrap of images"


def evaluation_section(directory: Path, evaluation: Evaluation, faces: int) -> dict[str, object]:
    """The content of evaluation.html, with at most `faces` mistakes."""
    predictions = read_predictions(directory)
    left: list[Table] = []
    right: list[Table] = []
    drawn: dict[str, Figure] = {}
    if gender := evaluation.gender:
        left.append(scores_table(evaluation, gender))
        right.append(classes_table(gender))
        drawn["confusion"] = confusion(gender)
        drawn["log-odds"] = score_distributions(predictions, gender)
        if gender.roc:
            drawn["ROC curve"] = roc(gender)
        drawn["calibration"] = reliability(gender)
    if age := evaluation.age:
        right.append(ages_table(evaluation, age))
        drawn["cumulative score of the age"] = cumulative_ages(age)
    return {
        "facts": measured_facts(evaluation),
        "scores": [side for side in (left, right) if side],
        "charts": charts(drawn),
        "verdict": f"The model is {against_baseline(gender)}." if gender and gender.baseline else "",
        "groups": [group_content(evaluation, table) for table in evaluation.tables],
        "robustness": robustness_content(directory),
        "mistakes": mistakes_content(directory, evaluation, predictions, faces),
    }


def measured_facts(evaluation: Evaluation) -> dict[str, str]:
    """Data, checkpoint, options and machine."""
    data, checkpoint, options, run = evaluation.data, evaluation.checkpoint, evaluation.options, evaluation.run
    labelled = ", ".join(f"{count:,} {name}" for name, count in data.labelled.items())
    facts = {
        "data": f"{data.path}, {data.split}: {plural(data.images, 'image')} ({labelled})",
        "subjects": f"{data.subjects:,}" if data.subjects else "unknown",
        "ages": f"known for {plural(data.aged, 'image')}" if data.aged else "unknown",
        "left out": f"{plural(data.left_out, 'image')} that did not decode" if data.left_out else "",
        "relation": relation(evaluation),
        "manifest": data.manifest,
        "checkpoint": f"{checkpoint.path}, epoch {checkpoint.epoch}, step {checkpoint.step}",
        "digest": checkpoint.digest,
        "network": f"{checkpoint.model}, images of {checkpoint.image_size} px{MIRRORED if options.flip else ''}",
        "decoded by": f"{options.backend}, in batches of {options.batch_size}",
        "computed in": options.precision,
        "evaluated": f"{when(run.began)} in {time_spent(run.seconds)}, {number(run.images_per_s, 0)} images/s",
        "machine": f"{run.device}, {plural(run.world_size, 'process', 'processes')}"
        + (f", job {run.job}" if run.job else ""),
        "code": ", ".join((*([f"git {run.revision}"] if run.revision else []), *map(" ".join, run.versions.items()))),
    }
    return {name: line for name, line in facts.items() if line}


def relation(evaluation: Evaluation) -> str:
    """How the images are related to those that the model was trained on."""
    data = evaluation.data
    if found := warning(data.trained_on):
        return found
    training = manifests_in(evaluation.checkpoint.manifest)
    if data.manifest in training:
        chose = ", but chose the best epoch" if evaluation.chose_epoch else ""
        one = "the data set" if len(training) == 1 else "one of the data sets"
        return f"{one} it was trained on; this split was held out{chose}"
    return "another data set than it was trained on; no image lies byte for byte in its training split"


def method(evaluation: Evaluation, score: Score) -> str:
    """How an interval was estimated."""
    if score.low != score.low:
        return NOTHING
    return METHODS[score.method] if evaluation.data.subjects or score.method == "wilson" else NO_SUBJECTS


def scores_table(evaluation: Evaluation, gender: Gender) -> Table:
    """The scores of gender."""
    rows = [
        ("accuracy", percent(gender.accuracy.value, 2), interval(gender.accuracy, 2), gender.accuracy),
        (
            "balanced accuracy",
            percent(gender.balanced_accuracy.value, 2),
            interval(gender.balanced_accuracy, 2),
            gender.balanced_accuracy,
        ),
        ("ROC AUC", number(gender.roc_auc.value, 4), interval(gender.roc_auc, 4, fraction=False), gender.roc_auc),
        ("d-prime", number(gender.d_prime.value), interval(gender.d_prime, 2, fraction=False), gender.d_prime),
        (
            "mean absolute error of the probability",
            number(gender.probability_mae.value, 4),
            interval(gender.probability_mae, 4, fraction=False),
            gender.probability_mae,
        ),
    ]
    lines = [(name, value, where, method(evaluation, score)) for name, value, where, score in rows]
    if baseline := gender.baseline:
        gain = baseline.difference
        lines.insert(1, ("majority-class baseline", percent(baseline.accuracy, 2), NOTHING, f"always {baseline.name}"))
        lines.insert(
            2, ("accuracy minus baseline", difference(gain, ends=False), interval(gain, 2), method(evaluation, gain))
        )
    if equal := gender.equal_error:
        lines.append(("equal error rate", percent(equal.rate, 2), NOTHING, f"threshold {equal.probability:.3f}"))
    lines.append(("calibration error", percent(gender.calibration.ece, 2), NOTHING, "15 bins"))
    lines.append(("log loss", number(gender.calibration.log_loss, 4), NOTHING, "nats"))
    if scaled := gender.temperature:
        where = f"T = {scaled.value:.3f}, from {Path(scaled.fitted_on).name}"
        lines.append(("calibration error, scaled", percent(scaled.calibration.ece, 2), NOTHING, where))
        lines.append(("log loss, scaled", number(scaled.calibration.log_loss, 4), NOTHING, where))
    return Table(("score", "value", "95 %", "method"), tuple(lines), "gender")


def classes_table(gender: Gender) -> Table:
    """Precision, recall and F1 of each class."""
    rows = [
        ("images", *(f"{scores.images:,}" for scores in gender.classes)),
        ("predicted", *(f"{scores.predicted:,}" for scores in gender.classes)),
    ]
    for name in ("precision", "recall", "F1"):
        found = [getattr(scores, name.lower()) for scores in gender.classes]
        rows.append((name, *(f"{percent(score.value)} ({interval(score)})" for score in found)))
    return Table(("", *(scores.name for scores in gender.classes)), tuple(rows), "classes")


def ages_table(evaluation: Evaluation, age: Age) -> Table:
    """The scores of age."""
    rows = [
        (name, f"{score.value:{form}}", interval(score, 2, fraction=False), method(evaluation, score))
        for name, score, form in (
            ("mean absolute error, years", age.mae, ".2f"),
            ("mean error, years", age.mean_error, "+.2f"),
        )
    ]
    rows += [(f"within {years} years", percent(age.cumulative[years]), NOTHING, NOTHING) for years in (5, 10)]
    return Table(("score", "value", "95 %", "method"), tuple(rows), "age")


def group_content(evaluation: Evaluation, table: GroupTable) -> dict[str, object]:
    """A score by a column: the gap as text, a forest plot, and the table."""
    by_accuracy = table.measure == "accuracy"
    whole = (
        evaluation.gender.accuracy
        if by_accuracy and evaluation.gender
        else evaluation.age.mae
        if evaluation.age
        else None
    )
    title = f"{'accuracy' if by_accuracy else 'age error'} by {table.column}"
    people, few = (any(values) for values in zip(*((one.subjects, one.small) for one in table.groups), strict=True))
    rows = [
        (
            group.value,
            f"{group.images:,}",
            *([f"{group.subjects:,}"] if people else []),
            percent(group.score.value) if by_accuracy else number(group.score.value),
            interval(group.score, fraction=by_accuracy),
            *([FEW if group.small else ""] if few else []),
        )
        for group in table.groups
    ]
    columns = [
        table.column,
        "images",
        *(["subjects"] if people else []),
        "accuracy" if by_accuracy else "years",
        "95 %",
    ]
    columns += [""] if few else []
    drawn = forest(table, whole.value) if whole and table.groups else None
    return {
        "gap": gap_text(table),
        "forest": as_svg(drawn, f"{title}, {evaluation.data.path}") if drawn else "",
        "table": Table(tuple(columns), tuple(rows), title),
    }


def gap_text(table: GroupTable) -> str:
    """The largest gap, and what it leaves out."""
    by_accuracy = table.measure == "accuracy"
    words = []
    if gap := table.gap:
        size = f"{gap.score.value * 100:.1f} points" if by_accuracy else f"{gap.score.value:.2f} years"
        where = (
            f" (95 %: {interval(gap.score, 1 if by_accuracy else 2, fraction=by_accuracy)})"
            if gap.score.low == gap.score.low
            else ""
        )
        zero = "significant" if gap.excludes_zero else "not significant"
        words.append(f"Largest gap: {gap.best} to {gap.worst}, {size}{where}, {zero}.")
    else:
        words.append("No gap: fewer than two groups are large enough.")
    if any(group.small for group in table.groups):
        words.append("Groups marked few, drawn hollow, are too small for a conclusion and not part of the gap.")
    if table.unknown:
        words.append(f"{plural(table.unknown, 'image has', 'images have')} no {table.column}.")
    return " ".join(words)


def robustness_content(directory: Path) -> dict[str, object] | None:
    """Scores of corrupted images, and what groups lost; None if there are none."""
    found = find_robustness(directory)
    if not found:
        return None
    drawn = {f"{one.name}, by severity": chart(found, one) for one in found.corruptions}
    return {
        "tables": score_tables(found),
        "losing": [*losing_most(found), *harmed_first(found)],
        "charts": charts(drawn),
    }


def mistakes_content(
    directory: Path, evaluation: Evaluation, predictions: Predictions, faces: int
) -> dict[str, object] | None:
    """The most confident mistakes: their faces if the data set still exists, else the sheet that evaluate drew."""
    wrong = mistakes(predictions)
    if not len(wrong) or not faces:
        return None
    manifest = manifest_of(Path(evaluation.data.path), evaluation.data.manifest)
    line = f"{len(wrong):,} of {plural(int(predictions.gender_known.sum()), 'image')} misclassified"
    if manifest:
        shown = wrong.rows(np.arange(min(faces, len(wrong))))
        line += f", the most confident first, {len(shown)} shown. The colour is the label."
        return {"line": line, "faces": faces_of(shown, manifest, evaluation.data.split), "sheet": None}
    if (sheet := directory / SHEET).is_file():
        return {"line": f"{line}.", "faces": None, "sheet": sheet.read_bytes()}
    line += ". Their faces cannot be shown without the data set; errors.csv lists them."
    return {"line": line, "faces": None, "sheet": None}


def largest_gap(evaluation: Evaluation) -> Gap | None:
    """The largest gap in accuracy of all tables."""
    gaps = [table.gap for table in evaluation.tables if table.gap and table.measure == "accuracy"]
    return max(gaps, key=lambda gap: gap.score.value, default=None)


def summary_table(parts: Sequence[Part]) -> Table:
    """A row for each evaluation."""
    columns = (
        "run",
        "data",
        "images",
        "accuracy (95 %)",
        "baseline",
        "ROC AUC",
        "ECE",
        "age MAE (95 %)",
        "largest gap, points",
    )
    rows = [summary_row(part.name, evaluation) for part in parts for evaluation in part.evaluations.values()]
    return Table(columns, tuple(rows), "summary")


def summary_row(name: str, evaluation: Evaluation) -> tuple[str, ...]:
    gender, age, data, gap = evaluation.gender, evaluation.age, evaluation.data, largest_gap(evaluation)
    return (
        name,
        f"{Path(data.path).name}, {data.split}",
        f"{data.images:,}",
        f"{percent(gender.accuracy.value, 2)} ({interval(gender.accuracy, 2)})" if gender else NOTHING,
        f"{percent(gender.baseline.accuracy, 2)}, {gender.baseline.name}" if gender and gender.baseline else NOTHING,
        number(gender.roc_auc.value, 4) if gender else NOTHING,
        percent(gender.calibration.ece, 1) if gender else NOTHING,
        f"{number(age.mae.value)} ({interval(age.mae, 2, fraction=False)})" if age else NOTHING,
        f"{gap.score.value * 100:.1f}: {gap.best} to {gap.worst}" if gap else NOTHING,
    )


def limits(parts: Sequence[Part]) -> Iterator[str]:
    """The measured limits for the model card."""
    several = sum(len(part.evaluations) for part in parts) > 1
    for part in parts:
        for directory, evaluation in part.evaluations.items():
            lead = f"{part.name} on {directory.resolve().name}: " if several else ""
            for line in limits_of(evaluation):
                yield lead + line


def limits_of(evaluation: Evaluation) -> Iterator[str]:
    """The worst group, the groups that are too small, calibration, and data that is no test."""
    for table in evaluation.tables:
        large = [group for group in table.groups if not group.small]
        if table.measure == "accuracy" and table.gap and table.gap.excludes_zero:
            worst = min(large, key=lambda group: group.score.value)
            yield f"least accurate by {table.column}: {worst.value}, {percent(worst.score.value)}."
        small = [group.value for group in table.groups if group.small]
        if small and table.measure == "accuracy":
            named = ", ".join(small[:6]) + (f" and {len(small) - 6} more" if len(small) > 6 else "")
            yield f"too few images by {table.column} for a conclusion on {named}."
    if gender := evaluation.gender:
        if gender.balanced_accuracy.low <= 0.5:
            yield f"no better than chance: balanced accuracy {percent(gender.balanced_accuracy.value)}."
        if gender.baseline and not gender.baseline.difference.low > 0:
            yield f"{against_baseline(gender)}."
        yield f"expected calibration error {percent(gender.calibration.ece)}."
    if not evaluation.data.subjects:
        yield "subjects are unknown: several pictures of one person may make intervals too short."
    trained_on = evaluation.data.trained_on
    if trained_on.images and not trained_on.left_out:
        yield f"{warning(trained_on)}: on others the model is worse."
    if line := chosen_line(evaluation):
        yield f"{line}."
    yield from (f"{line}." for line in leak_lines(evaluation.checkpoint.leaks))
