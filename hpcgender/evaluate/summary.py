"""The printed summary of an evaluation: a few lines with the most important numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpcgender.evaluate.results import Age, Evaluation, Gender, GroupTable, Score
from hpcgender.evaluate.trained_on import warning
from shard_tools.base.text import plural


def summary(evaluation: Evaluation) -> list[str]:
    """The lines."""
    data = evaluation.data
    subjects = f" of {plural(data.subjects, 'subject')}" if data.subjects else ""
    images = f"{plural(data.images - data.left_out, 'image')}{subjects}"
    speed = f"{evaluation.run.images_per_s:.0f} img/s in {evaluation.options.precision}"
    lines = [f"{data.split} of {data.path}: {images}, {speed}"]
    if line := warning(data.trained_on):
        lines.append(line)
    if line := chosen_line(evaluation):
        lines.append(f"WARNING: {line}")
    lines += leak_lines(evaluation.checkpoint.leaks)
    if evaluation.gender:
        lines += gender_lines(evaluation.gender)
    if evaluation.age:
        lines += age_lines(evaluation.age)
    losses = ", ".join(f"{task} {loss:.4f}" for task, loss in evaluation.losses.items() if not math.isnan(loss))
    if losses:
        lines.append(f"mean loss, without class weights and label smoothing: {losses}")
    for table in evaluation.tables:
        lines += table_lines(table)
    return lines


def chosen_line(evaluation: Evaluation) -> str:
    """What to say if the best epoch was chosen on these images, and the name of the split does not say it."""
    chosen = evaluation.chose_epoch and evaluation.data.split != "val"
    return "the best epoch was chosen on these images, which flatters it" if chosen else ""


def leak_lines(leaks: Sequence[str]) -> list[str]:
    """The warning about a model whose data sets share images or subjects across splits."""
    return [f"WARNING: the model was trained with --allow-leaks: {line}" for line in leaks]


def against_baseline(gender: Gender) -> str:
    """Whether the model is better than the majority-class baseline, by the interval of the difference."""
    if not gender.baseline:
        return ""
    always = f"always predicting {gender.baseline.name}"
    if gender.baseline.difference.low > 0:
        return f"better than {always}"
    if gender.baseline.difference.high < 0:
        return f"worse than {always}"
    return f"not distinguishable from {always} with {plural(gender.images, 'image')}"


def gender_lines(gender: Gender) -> list[str]:
    """The scores of gender."""
    recalls = ", ".join(f"{scores.name} {percent(scores.recall)}" for scores in gender.classes if scores.images)
    lines = [f"accuracy {percent(gender.accuracy)} ({recalls}), balanced {percent(gender.balanced_accuracy)}"]
    lines += [
        f"{scores.name}: precision {scores.precision.value:.2%}, recall {scores.recall.value:.2%}, "
        f"F1 {scores.f1.value:.2%}"
        for scores in gender.classes
        if scores.images and scores.predicted
    ]
    if gender.baseline:
        verdict = f"{against_baseline(gender)}: {points(gender.baseline.difference)} points"
        lines.append(f"majority-class baseline {gender.baseline.accuracy:.2%}; the model is {verdict}")
    if gender.equal_error:
        equal = gender.equal_error
        lines.append(
            f"ROC AUC {number(gender.roc_auc, 4)}, d-prime {number(gender.d_prime, 2)}, "
            f"equal error {equal.rate:.2%} where male begins at probability {equal.probability:.3f}"
        )
    line = (
        f"mean absolute error of the probability {number(gender.probability_mae, 4)}, calibration error "
        f"{gender.calibration.ece:.4f}, log loss {gender.calibration.log_loss:.4f}"
    )
    if gender.temperature:
        after = gender.temperature.calibration
        line += f"; with temperature {gender.temperature.value:.3f} {after.ece:.4f}, {after.log_loss:.4f}"
    return [*lines, line]


def age_lines(age: Age) -> list[str]:
    """The scores of age."""
    return [
        f"age MAE {number(age.mae, 2)} years, mean error {age.mean_error.value:+.2f}, "
        f"{age.cumulative[5]:.1%} within 5 years of {plural(age.images, 'image')}"
    ]


def table_lines(table: GroupTable) -> list[str]:
    """A table: a line for each group, and the largest gap."""
    form = percent if table.measure == "accuracy" else years
    width = max(len(group.value) for group in table.groups)
    lines = [f"{'accuracy' if table.measure == 'accuracy' else 'age MAE'} by {table.column}:"]
    for group in table.groups:
        small = "  (small)" if group.small else ""
        images = plural(group.images, "image ", "images")
        lines.append(f"  {group.value:<{width}} {images:>14}  {form(group.score)}{small}")
    if table.unknown:
        images = plural(table.unknown, "image ", "images")
        lines.append(f"  {'unknown':<{width}} {images:>14}".rstrip())
    if table.gap:
        gap = table.gap
        how = "excludes zero" if gap.excludes_zero else "includes zero"
        size = f"{points(gap.score)} points" if table.measure == "accuracy" else f"{number(gap.score, 2)} years"
        lines.append(f"  largest gap: from {gap.best} to {gap.worst} {size}, which {how}")
    return lines


def percent(score: Score) -> str:
    """A fraction with its interval."""
    interval = "" if math.isnan(score.low) else f" [{100 * score.low:.2f}, {100 * score.high:.2f}]"
    return f"{score.value:.2%}{interval}"


def points(score: Score) -> str:
    """A difference of fractions with its interval, in percentage points."""
    interval = "" if math.isnan(score.low) else f" [{100 * score.low:.2f}, {100 * score.high:.2f}]"
    return f"{100 * score.value:.2f}{interval}"


def years(score: Score) -> str:
    """A number of years with its interval."""
    return number(score, 2)


def number(score: Score, digits: int) -> str:
    """A number with its interval."""
    interval = "" if math.isnan(score.low) else f" [{score.low:.{digits}f}, {score.high:.{digits}f}]"
    return f"{score.value:.{digits}f}{interval}"
