"""Models on the same corrupted images: mean corruption error, and paired differences to the first model.

For `evaluate --corrupt` of all models, over the corruptions that all have with the same strengths, and the images of
known gender. Runs that differ by their seed alone are one model, as in seeds.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpcgender.compare.paired import holm
from hpcgender.compare.seeds import EvaluatedRun, difference_terms, models_of
from hpcgender.compare.variance import of_images, of_seeds, t_interval
from hpcgender.evaluate.predictions import Floats, Labels
from hpcgender.evaluate.resample import clusters_of, drawn_score, mean_differences, parts, resampled_sums
from hpcgender.evaluate.results import Score
from hpcgender.robustness.corrupted import read_corrupted
from hpcgender.robustness.corruptions import PER_PIXEL
from hpcgender.robustness.results import Robustness, find_robustness

UNDEFINED = 0.01
"""Part of the draws in which the first model may make no error, for the mean corruption error to have an interval."""
NO_SCORE = Score(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class RobustModel:
    """A model on corrupted images. Accuracies are means over the severities; differences are this minus the first.

    Intervals are the bootstrap's of subjects. If a model has several seeds, accuracies are means over them, and
    intervals count seeds and images, as in variance.py: nan where one of both has a single run.
    """

    name: str
    runs: tuple[str, ...]
    """One, or several that differ by their seed alone."""
    clean: float
    """Accuracy on the images as they are."""
    accuracy: float
    """Mean over the corruptions."""
    lost: Score
    """Accuracy on the clean images minus that."""
    by_corruption: dict[str, float]
    """Accuracy."""
    mean_corruption_error: Score
    """Mean over corruptions of the error divided by the first model's (Hendrycks & Dietterich, ICLR 2019); nan where
    that makes none. It has no interval over seeds."""
    more: Score
    """Difference of accuracies on corrupted images."""
    p: float
    """Two-sided, of Student's t with clusters of subjects, of that difference; nan of the first model."""
    p_holm: float
    """Corrected for the number of models that are compared with the first (Holm, Scand. J. Statist. 6, 1979)."""
    more_by_corruption: dict[str, Score]
    more_lost: Score
    """Difference of what is lost."""


def robust_models(runs: Sequence[EvaluatedRun]) -> tuple[tuple[RobustModel, ...], tuple[str, ...]]:
    """The models, in their order, and sentences on what is not compared and why.

    No model without corruptions that all have; no sentence either if none has any. The runs have predictions of the
    same images in the same order.
    """
    found = [find_robustness(run.directory) for run in runs]
    if not any(found):
        return (), ()
    if without := [run.name for run, one in zip(runs, found, strict=True) if not one]:
        return (), (f"Corrupted images are not compared: evaluate {' and '.join(without)} with --corrupt, too.",)
    if ages := [run.name for run in runs if not run.results.gender]:
        return (), (f"Corrupted images are compared by gender alone, which {' and '.join(ages)} cannot tell.",)
    names = common([one for one in found if one])
    notes: tuple[str, ...] = ()
    sizes = sorted({run.results.checkpoint.image_size for run in runs})
    if len(sizes) > 1 and (of_pixels := [name for name in names if name in PER_PIXEL]):
        names = tuple(name for name in names if name not in PER_PIXEL)
        notes = (
            f"Corrupted images are compared without {', '.join(of_pixels)}: these are of single pixels, and inputs "
            f"have {' and '.join(map(str, sizes))} px.",
        )
    if not names:
        return (), (*notes, "Corrupted images are not compared: no corruption is common to all.")
    known = np.all([run.predictions.gender_known for run in runs], axis=0)
    clusters = clusters_of(runs[0].predictions.subject[known])
    models = models_of(runs, by=lambda run: run.predicted)
    wrong = [np.array([wrong_of(run, names)[known] for run in several]) for several in models.values()]
    seeds = [[run.seed for run in several] for several in models.values()]
    compared = []
    for (name, several), one, own in zip(models.items(), wrong, seeds, strict=True):
        between = Between(
            clusters=clusters,
            over_seeds=len(models) < len(runs),
            same_seeds=own == seeds[0] and len(set(own)) == len(own),
        )
        compared.append(robust_model(name, tuple(run.name for run in several), names, one, wrong[0], between))
    return corrected(compared), notes


def common(found: Sequence[Robustness]) -> tuple[str, ...]:
    """The corruptions that all have, with the same strengths."""
    first, *others = [
        {one.name: tuple(severity.strength for severity in one.severities) for one in robustness.corruptions}
        for robustness in found
    ]
    return tuple(name for name, strengths in first.items() if all(one.get(name) == strengths for one in others))


def wrong_of(run: EvaluatedRun, names: tuple[str, ...]) -> Floats:
    """How wrong a run is about each image, (n, 1 + corruptions): 0 or 1 as it is, then means over severities."""
    predictions = run.predictions
    corrupted = read_corrupted(run.directory, names, predictions.key)
    male = predictions.label == 1
    columns = [((corrupted[name].logit > 0) != male[:, None]).mean(1) for name in names]
    return np.column_stack([(predictions.logit > 0) != male, *columns]).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Between:
    """How means are compared."""

    clusters: Labels
    """The subjects' numbers of the images (n,)."""
    over_seeds: bool
    """Whether intervals count seeds."""
    same_seeds: bool
    """Whether runs of both models are of one seed each."""

    def means(self, values: Floats) -> list[Score]:
        """Of numbers (runs, n, k), k means."""
        if not self.over_seeds:
            return list(mean_differences(values[0], self.clusters))
        return [
            t_interval(float(one.mean()), [of_seeds(one), of_images(one.mean(0), self.clusters)])[0]
            for one in np.moveaxis(values, 2, 0)
        ]

    def differences(self, values: Floats, first: Floats) -> list[tuple[Score, float]]:
        """Of numbers (runs, n, k) minus the first model's (its runs, n, k): k means, and p of each."""
        columns = list(zip(np.moveaxis(values, 2, 0), np.moveaxis(first, 2, 0), strict=True))
        means = [float(own.mean() - others.mean()) for own, others in columns]
        if self.over_seeds:
            return [
                t_interval(mean, difference_terms(own, others, self.clusters, self.same_seeds))
                for mean, (own, others) in zip(means, columns, strict=True)
            ]
        scores = mean_differences(values[0] - first[0], self.clusters)
        terms = [of_images(own[0] - others[0], self.clusters) for own, others in columns]
        return [(score, t_interval(mean, [term])[1]) for score, mean, term in zip(scores, means, terms, strict=True)]


def robust_model(
    name: str, runs: tuple[str, ...], names: tuple[str, ...], wrong: Floats, first: Floats, between: Between
) -> RobustModel:
    """The numbers of a model, by how wrong its runs and the first one's are, (runs, n, 1 + corruptions)."""
    (lost,) = between.means(of_loss(wrong))
    ours, firsts = (np.dstack([of_loss(one), -one[..., 1:].mean(2), -one[..., 1:]]) for one in (wrong, first))
    (more_lost, _), (more, p), *by_corruption = between.differences(ours, firsts)
    means = 1 - wrong.mean((0, 1))
    error = corruption_error(wrong.mean(0)[:, 1:], first.mean(0)[:, 1:], between.clusters)
    return RobustModel(
        name=name,
        runs=runs,
        clean=float(means[0]),
        accuracy=float(means[1:].mean()),
        lost=lost,
        by_corruption=dict(zip(names, means[1:].tolist(), strict=True)),
        mean_corruption_error=replace(NO_SCORE, value=error.value) if between.over_seeds else error,
        more=more,
        p=p,
        p_holm=p,
        more_by_corruption={of: score for of, (score, _) in zip(names, by_corruption, strict=True)},
        more_lost=more_lost,
    )


def of_loss(wrong: Floats) -> Floats:
    """How much more wrong than as it is, (runs, n, 1), the mean of the corruptions."""
    lost: Floats = wrong[..., 1:].mean(2, keepdims=True) - wrong[..., :1]
    return lost


def corrected(models: Sequence[RobustModel]) -> tuple[RobustModel, ...]:
    """The models with p corrected for their number."""
    p_holm = iter(holm([model.p for model in models[1:] if not math.isnan(model.p)]))
    others = [model if math.isnan(model.p) else replace(model, p_holm=next(p_holm)) for model in models[1:]]
    return (replace(models[0], p=math.nan, p_holm=math.nan), *others)


def corruption_error(wrong: Floats, first: Floats, clusters: Labels) -> Score:
    """The mean over corruptions of the quotients of errors (n, corruptions)."""
    drawn, drawn_first = np.split(resampled_sums(np.column_stack([wrong, first]), clusters), 2, axis=1)
    value = float(parts(wrong.sum(0), first.sum(0)).mean())
    quotients = parts(drawn, drawn_first).mean(1)
    if np.isnan(quotients).mean() > UNDEFINED:
        return replace(NO_SCORE, value=value)
    return drawn_score(value, quotients)
