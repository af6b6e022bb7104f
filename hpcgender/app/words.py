"""What numbers of an evaluation mean for one photo, in sentences."""

from __future__ import annotations

from hpcgender.app.shown import ShownModel
from hpcgender.evaluate.confidence import ConfidenceBin, bin_of
from hpcgender.evaluate.groups import SMALL
from hpcgender.report.words import interval
from shard_tools.base.text import percent, plural


def confidence_words(shown: ShownModel, label: str, confidence: float) -> list[str]:
    """How often such a confidence was right, and whether it is calibrated."""
    lines = []
    if shown.of_gender:
        lines.append(right_words(bin_of(confidence, shown.bins), shown.of_gender.title))
    else:
        lines.append(f"No evaluation tells how often this model is right when it says {label}: run hpcgender evaluate.")
    if not shown.model.decision.calibrated_by:
        lines.append("The confidence is not calibrated: evaluate the model with --temperature-from.")
    return lines


def right_words(found: ConfidenceBin, data: str) -> str:
    """How many images of a bin were right."""
    span = f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    if not found.images:
        return f"In the evaluation ({data}), no face had a confidence of {span}: how often it is right is not known."
    few = " So few faces tell little." if found.images < SMALL else ""
    verb = "was" if found.right == 1 else "were"
    return (
        f"In the evaluation ({data}), {found.right:,} of {plural(found.images, 'face')} with a confidence of {span} "
        f"{verb} right ({percent(found.score.value)}, 95 % interval {interval(found.score)} %).{few}"
    )


def age_words(shown: ShownModel) -> str:
    """How far ages were off."""
    if not shown.of_age:
        return "No evaluation tells how far this model's ages are off: run hpcgender evaluate on images of known age."
    evaluated, age = shown.of_age
    ends = interval(age.mae, fraction=False)
    return (
        f"In the evaluation ({evaluated.title}), ages were off by {age.mae.value:.1f} years on average (95 % interval "
        f"{ends}); for {percent(age.cumulative[5], 0)} of {plural(age.images, 'face')} by at most 5 years."
    )
