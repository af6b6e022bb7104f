"""How log-odds become a prediction: the temperature that calibrates its confidence, and the threshold of male."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hpcgender.checkpoint_file import KeptTemperature
from hpcgender.evaluate.results import FILE, Evaluation, read_evaluation
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError, nearest
from shard_tools.base.text import plural

EVALUATIONS = "evaluations"
"""Directory of evaluations within a run directory."""
EQUAL_ERROR, FALSE_POSITIVES = "equal-error", "fpr="
VAL = "val"
"""The split on which thresholds are chosen, so that those of test can tell how good they are."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is made of log-odds of male."""

    temperature: float = 1.0
    """What log-odds are divided by for a calibrated probability; 1 without a calibration."""
    threshold: float = 0.0
    """Log-odds, as the network outputs them, above which an image is predicted male."""
    calibrated_by: str = ""
    """The images that the temperature was fitted on, and where it was found; empty if there is none."""
    threshold_from: str = ""
    """The images and the evaluation that the threshold was chosen on; empty if it is a number."""

    def probability(self, logit: float) -> float:
        """The calibrated probability of male."""
        scaled = logit / self.temperature
        return 1 / (1 + math.exp(-scaled)) if scaled >= 0 else 1 - 1 / (1 + math.exp(scaled))

    @property
    def probability_threshold(self) -> float:
        """The threshold as a calibrated probability of male."""
        return self.probability(self.threshold)

    @property
    def words(self) -> str:
        """One line for people."""
        if self.calibrated_by:
            calibrated = f"confidence is calibrated by {self.calibrated_by} (temperature {self.temperature:.3g})"
        else:
            calibrated = "confidence is not calibrated"
        by = f", {self.threshold_from}" if self.threshold_from else ""
        at = f"; male is predicted above {self.probability_threshold:.4g}{by}" if self.threshold or by else ""
        return f"{calibrated}{at}"


@dataclass(frozen=True, kw_only=True)
class DecisionConfig:
    """Options of the commands that decide about images."""

    evaluation: Annotated[
        str,
        default_is(
            "what evaluate --keep-temperature kept, else the newest of the checkpoint's run that fitted a temperature",
            "DIR|NAME|none",
        ),
    ] = ""
    """Evaluation of this checkpoint by which confidence is calibrated, made with evaluate --temperature-from, and from
    which --threshold is taken, by default from the newest on a split val, else the newest: its directory, or its name
    in the run, e.g. morph-val. none: no calibration."""
    threshold: Annotated[str, default_is("0.5, or that of an exported file", "P|equal-error|fpr=RATE")] = ""
    """Probability of male above which male is predicted, e.g. 0.6; or equal-error, where as large a part of the women
    as of the men was predicted wrongly in the evaluation; or fpr=0.01, where one woman in a hundred was."""

    def check_threshold(self) -> None:
        """Raises UserError for a threshold that is none."""
        if self.threshold in ("", EQUAL_ERROR):
            return
        text = self.threshold.removeprefix(FALSE_POSITIVES)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise UserError(
                f"--threshold {self.threshold}: give a probability such as 0.6, {EQUAL_ERROR}, or a rate of false "
                f"positives such as {FALSE_POSITIVES}0.01, each above 0 and below 1"
            )

    def decision(
        self,
        checkpoint: Path,
        digest: str,
        kept: KeptTemperature | None,
        own_threshold: float = 0.0,
        own_threshold_from: str = "",
    ) -> Decision:
        """What the options ask for, of a checkpoint with that checksum; UserError if there is no such evaluation.

        `kept` is the temperature in its file; an exported one also has a threshold of its own, log-odds, and what that
        was chosen on.
        """
        self.check_threshold()
        from_evaluation = self.threshold == EQUAL_ERROR or self.threshold.startswith(FALSE_POSITIVES)
        given = self.evaluation not in ("", "none")
        found = self.find(checkpoint, digest, fitted=not (given and from_evaluation))
        fitted = found and self.evaluation != "none" and found[1].gender and found[1].gender.temperature
        if kept and not self.evaluation:
            temperature, by = kept.value, f"{kept.fitted_on}, as kept in {checkpoint.name}"
        elif found and fitted:
            on = f"{plural(fitted.images, 'image')} of {images_of(found[1], fitted.fitted_on)}"
            temperature, by = fitted.value, f"{on}, as fitted in {found[0].resolve().name}"
        else:
            temperature, by = 1.0, ""
        if from_evaluation and not given:
            found = self.find(checkpoint, digest, fitted=False)
        if not self.threshold:
            threshold, chosen_on = own_threshold, own_threshold_from
        elif not from_evaluation:
            value = float(self.threshold)
            threshold, chosen_on = temperature * math.log(value / (1 - value)), ""
        elif found is None:
            raise UserError(
                f"--threshold {self.threshold} is taken from an evaluation of {checkpoint}, and there is none: "
                "evaluate it, or give its directory as --evaluation"
            )
        else:
            threshold = self.of_evaluation(*found)
            split = found[1].data.split
            chosen_on = f"{self.threshold} on {images_of(found[1], split)}, by {found[0].resolve().name}"
            if split != VAL:
                chosen_on += f" (WARNING: scores on {split} are too good with it; choose it on {VAL})"
        return Decision(temperature=temperature, threshold=threshold, calibrated_by=by, threshold_from=chosen_on)

    def find(self, checkpoint: Path, digest: str, *, fitted: bool) -> tuple[Path, Evaluation] | None:
        """The evaluation to use, of this checkpoint, without --flip; None if there is none and none was given.

        `fitted`: one without a temperature is of no use, and the newest is used; else the newest on val, or of all.
        """
        evaluations = checkpoint.absolute().parent.parent / EVALUATIONS
        if self.evaluation not in ("", "none"):
            directory = next(
                (path for path in (Path(self.evaluation), evaluations / self.evaluation) if (path / FILE).is_file()),
                None,
            )
            if directory is None:
                names = [file.parent.name for file in evaluations.glob(f"*/{FILE}")]
                raise UserError(f"no evaluation {self.evaluation}: {nearest(self.evaluation, names)}")
            evaluation = read_evaluation(directory)
            self.check_evaluation(directory, evaluation, digest, fitted=fitted)
            return directory, evaluation
        found = []
        for file in evaluations.glob(f"*/{FILE}"):
            with suppress(UserError):  # of another version, which nobody asked for
                found.append((file.parent, read_evaluation(file.parent)))
        fitting = [
            (path, one)
            for path, one in found
            if one.checkpoint.digest == digest and not one.options.flip and one.gender
            if one.gender.temperature or not fitted
        ]
        return max(
            fitting,
            key=lambda item: (not fitted and item[1].data.split == VAL, item[1].run.began, item[0].name),
            default=None,
        )

    def check_evaluation(self, directory: Path, evaluation: Evaluation, digest: str, *, fitted: bool) -> None:
        """Raises UserError if a given evaluation says nothing of the checkpoint's predictions."""
        if evaluation.checkpoint.digest != digest:
            raise UserError(
                f"{directory} evaluated another checkpoint, {evaluation.checkpoint.path}: give one of yours"
            )
        if evaluation.options.flip:
            raise UserError(f"{directory} was evaluated with --flip, where predictions are others: evaluate without it")
        if evaluation.gender is None:
            raise UserError(f"{directory} has no scores of gender: give another evaluation")
        if fitted and evaluation.gender.temperature is None:
            raise UserError(
                f"{directory} fitted no temperature: evaluate again with --temperature-from val, or give --evaluation "
                "none"
            )

    def of_evaluation(self, directory: Path, evaluation: Evaluation) -> float:
        """The log-odds above which male is predicted, by the curve of an evaluation."""
        gender = evaluation.gender
        if gender is None or gender.equal_error is None:
            raise UserError(f"{directory} has images of one class alone, so no threshold: give another --evaluation")
        if self.threshold == EQUAL_ERROR:
            return gender.equal_error.threshold
        rate = float(self.threshold.removeprefix(FALSE_POSITIVES))
        allowed = [point.threshold for point in gender.roc if point.false_positive <= rate]
        # An image at a point's threshold is predicted male there; at the curve's beginning, nobody is.
        lowest = min((threshold for threshold in allowed if not math.isnan(threshold)), default=math.nan)
        if math.isnan(lowest):
            return gender.roc[1].threshold
        return math.nextafter(lowest, -math.inf)


def images_of(evaluation: Evaluation, of: str) -> str:
    """A split of the evaluation's data set, such as `val of faces`; or of another evaluation's directory its name."""
    return Path(of).name if Path(of).is_absolute() else f"{of} of {Path(evaluation.data.path).resolve().name}"
