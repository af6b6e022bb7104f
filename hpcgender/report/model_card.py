"""The model card (Mitchell et al., FAT* 2019): what the models are for, what they are not for, and where they fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from hpcgender.evaluate.results import Evaluation
from hpcgender.report.sources import Part
from hpcgender.report.words import percent
from shard_tools.base.page import card

FOR = (
    "Research on how face classifiers behave: how well they tell annotated labels, how their errors differ between "
    "groups of people, what they look at, and how this changes with data and design.",
    "Images that the researchers may use for this, under the licences and consents of their data sets.",
)
NOT_FOR = (
    "Identifying or verifying people, or sorting, admitting, refusing, ranking, watching or advertising to them: no "
    "decision about a person may rest on what such a model says.",
    "Telling anybody's gender. A picture does not show it: the models tell how annotators or records labelled it.",
    "Telling anybody's age where something depends on it.",
)
LABELS = (
    "Gender is annotated and binary: female or male, as the data set has it, from annotators who looked at the "
    "picture, from records, or from names. People who are neither are not represented.",
    "Errors of the labels count as errors of the model. Images whose label is unknown are left out of the scores.",
    "Groups are those of the data set, with its names. They are coarse, were assigned by others too, and mean "
    "different things in different data sets.",
)
READING = (
    "Intervals of 95 % are about other people drawn in the same way as those measured. They say nothing about "
    "other cameras, places, ages or years.",
    "Scores on data that a model was not trained on are usually lower, and its probabilities less true. Where a "
    "decision threshold matters, it must be set on data like that of its use.",
    "A gap between groups may come from the model, from the labels, or from how the pictures were taken. It is a "
    "finding to explain, not an explanation.",
    "Heat maps show where the evidence for a model's answer lies, not why it is evidence. The deletion check "
    "says how far they can be trusted.",
)


def model_card(parts: Sequence[Part]) -> str:
    """The card of all models of the report, with what is known of their own limits."""
    sections = {
        "meant for": FOR,
        "not meant for": NOT_FOR,
        "labels": LABELS,
        "limits that were measured": tuple(measured(parts)),
        "how to read the numbers": READING,
    }
    lists = "".join(
        f"<div><h3>{escape(title)}</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul></div>\n"
        for title, lines in sections.items()
        if lines
    )
    return card("intended use and limits", f'<div class="model-card">\n{lists}</div>')


def measured(parts: Sequence[Part]) -> Iterator[str]:
    """What the evaluations found, in sentences."""
    several = sum(len(part.evaluations) for part in parts) > 1
    for part in parts:
        for directory, evaluation in part.evaluations.items():
            lead = f"{part.name} on {directory.resolve().name}: " if several else ""
            for line in limits(evaluation):
                yield lead + line


def limits(evaluation: Evaluation) -> Iterator[str]:
    """The worst group, the groups that are too small, calibration, and data of another kind."""
    for table in evaluation.tables:
        large = [group for group in table.groups if not group.small]
        if table.measure == "accuracy" and table.gap and table.gap.excludes_zero:
            worst = min(large, key=lambda group: group.score.value)
            yield f"least accurate by {table.column}: {worst.value}, {percent(worst.score.value)}."
        small = [group.value for group in table.groups if group.small]
        if small and table.measure == "accuracy":
            named = ", ".join(small[:6]) + (f" and {len(small) - 6} more" if len(small) > 6 else "")
            yield f"too few images by {table.column} to say much of {named}."
    if gender := evaluation.gender:
        if gender.balanced_accuracy.low <= 0.5:
            yield f"no better than chance: balanced accuracy {percent(gender.balanced_accuracy.value)}."
        yield f"probabilities are off by {percent(gender.calibration.ece)} on average (expected calibration error)."
    if not evaluation.data.subjects:
        yield "people are not known, so that several pictures of one person may make intervals too short."
    if evaluation.data.split == "train":
        yield "measured on the images it learnt from: on others it is worse."
