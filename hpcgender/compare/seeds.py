"""Runs that differ by their seed alone, as one: mean, spread, and differences that count seeds and images.

See `hpcgender.compare.variance` for the intervals.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.compare.paired import SIGNIFICANT, Pair, holm, pairs
from hpcgender.compare.variance import HALF_A_POINT, Term, of_images, of_seeds, seeds_needed, t_interval, within_1
from hpcgender.data.config import ReadConfig
from hpcgender.evaluate.finished import FinishedEvaluation
from hpcgender.evaluate.resample import clusters_of
from hpcgender.evaluate.results import Score
from hpcgender.option_layers import LAYERS
from hpcgender.train.config import RunConfig
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural

Floats = npt.NDArray[np.float64]

NOT_OF_THE_MODEL = (
    {field.name for config in (RunConfig, ReadConfig) for field in fields(config)} - {"backend"}
    | LAYERS
    | {"seed", "augment"}  # a file's name: its content is `augmentation`
)
"""Options in which runs of one model may differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedRun(FinishedEvaluation):
    """An evaluation of a run, which has a name."""

    name: str

    @property
    def seed(self) -> int:
        return int(self.results.checkpoint.options["seed"])

    @property
    def run_dir(self) -> Path:
        """The directory of its run."""
        return Path(self.results.checkpoint.path).parent.parent

    @property
    def trained(self) -> str:
        """All that decides its weights but the seed, equal for runs of one model."""
        checkpoint = self.results.checkpoint
        options = {name: value for name, value in checkpoint.options.items() if name not in NOT_OF_THE_MODEL}
        return json.dumps([options, checkpoint.manifest, Path(checkpoint.path).name], sort_keys=True)

    @property
    def predicted(self) -> str:
        """The same of its predictions."""
        return f"{self.trained} {json.dumps(asdict(self.results.options), sort_keys=True)}"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score over several seeds."""

    mean: Score
    """The mean over seeds; its interval counts seeds and images."""
    deviation: float
    """Standard deviation of the seeds' scores."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A model: its runs, which differ by their seed alone."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: Spread | None
    """None without gender, and of a single run."""
    age_mae: Spread | None
    """Years; None without ages, and of a single run."""


@dataclass(frozen=True, kw_only=True)
class GroupPair:
    """The first model minus the second one, over their seeds."""

    first: str
    second: str
    seeds: tuple[int, int]
    """Runs of each."""
    same_seeds: bool
    """Whether the differences are of two runs with one seed each."""
    images: int
    """Of known gender; 0 without."""
    accuracy: Score | None
    """nan ends where a model has a single run. None where one does not predict it, or no such label is known."""
    p: float
    """Two-sided, of Student's t; nan where a model has a single run."""
    p_holm: float
    """Corrected for the number of pairs (Holm, Scand. J. Statist. 6, 1979)."""
    needed: int
    """Seeds of each that would show half a point of accuracy; 0: no number of them would, or not known."""
    age_mae: Score | None
    """Years."""


def compared(runs: Sequence[EvaluatedRun]) -> tuple[tuple[Group, ...], tuple[Pair, ...] | tuple[GroupPair, ...]]:
    """Models with several seeds and the pairs of models; no models and the pairs of runs, if each model has one run.

    The runs have predictions of the same images in the same order.
    """
    models = models_of(runs, by=lambda run: run.predicted)
    if len(models) == len(runs):
        return (), tuple(pairs([(run.name, run.predictions) for run in runs]))
    return tuple(groups_of(models)), tuple(group_pairs(models))


def models_of(runs: Sequence[EvaluatedRun], by: Callable[[EvaluatedRun], str]) -> dict[str, list[EvaluatedRun]]:
    """The runs of each model, those for which `by` is the same, by a short name for it.

    Two checkpoints of one run are two models, and so are two runs of one seed.
    """
    found: dict[tuple[str, int], list[EvaluatedRun]] = {}
    for place, run in enumerate(runs):
        before = sum(
            by(run) == by(other) and (run.run_dir == other.run_dir or run.seed == other.seed) for other in runs[:place]
        )
        found.setdefault((by(run), before), []).append(run)
    members = [sorted(several, key=lambda run: (run.seed, run.name)) for several in found.values()]
    short = [name_of([run.name for run in several]) for several in members]
    count = Counter(short)
    return {
        name if count[name] == 1 else f"{name} ({place})": several
        for place, (name, several) in enumerate(zip(short, members, strict=True), 1)
    }


def name_of(runs: Sequence[str]) -> str:
    """What the names of runs have in common, without what counts seeds; the first one's if that is nothing."""
    if len(runs) == 1:
        return runs[0]
    common = {re.sub(r"(?:[-_./ ]+(?:seed|s)|[-_./ ]*seed)?[-_./ =]*\d+$", "", run) for run in runs}
    return common.pop() if len(common) == 1 and "" not in common else f"{runs[0]} and {len(runs) - 1} more"


def same_images(runs: Sequence[EvaluatedRun]) -> None:
    """Raises UserError unless all runs were evaluated on the same images, in the same order."""
    for run in runs[1:]:
        if not np.array_equal(run.predictions.key, runs[0].predictions.key):
            raise UserError(f"{run.directory} has other images than {runs[0].directory}: evaluate both again")


def groups_of(models: dict[str, list[EvaluatedRun]]) -> list[Group]:
    """Each model over its seeds."""
    found = []
    for name, runs in models.items():
        right, errors, clusters = scores([runs])
        accuracy = spread(right[0], clusters[0])
        found.append(
            Group(
                name=name,
                runs=tuple(run.name for run in runs),
                seeds=tuple(run.seed for run in runs),
                accuracy=accuracy and replace(accuracy, mean=within_1(accuracy.mean)),
                age_mae=spread(errors[0], clusters[1]),
            )
        )
    return found


def group_pairs(models: dict[str, list[EvaluatedRun]]) -> list[GroupPair]:
    """All pairs of models."""
    found = [group_pair(*first, *second) for first, second in combinations(models.items(), 2)]
    corrected = iter(holm([pair.p for pair in found if not math.isnan(pair.p)]))
    return [pair if math.isnan(pair.p) else with_holm(pair, next(corrected)) for pair in found]


def with_holm(pair: GroupPair, p_holm: float) -> GroupPair:
    return replace(pair, p_holm=p_holm)


def group_pair(first: str, of_first: list[EvaluatedRun], second: str, of_second: list[EvaluatedRun]) -> GroupPair:
    right, errors, clusters = scores([of_first, of_second])
    seeds = [[run.seed for run in runs] for runs in (of_first, of_second)]
    same = seeds[0] == seeds[1] and len(set(seeds[0])) == len(seeds[0])
    accuracy, p, needed = None, math.nan, 0
    if right[0].size:
        terms = difference_terms(right[0], right[1], clusters[0], same)
        accuracy, p = t_interval(float(right[0].mean() - right[1].mean()), terms)
        needed = seeds_needed(terms)
    age_mae = None
    if errors[0].size:
        terms = difference_terms(errors[0], errors[1], clusters[1], same)
        age_mae, _ = t_interval(float(errors[0].mean() - errors[1].mean()), terms)
    return GroupPair(
        first=first,
        second=second,
        seeds=(len(of_first), len(of_second)),
        same_seeds=same,
        images=right[0].shape[1],
        accuracy=accuracy,
        p=p,
        p_holm=p,
        needed=needed,
        age_mae=age_mae,
    )


def scores(groups: Sequence[Sequence[EvaluatedRun]]) -> tuple[list[Floats], list[Floats], list[npt.NDArray[np.int64]]]:
    """Of each group, whether each run is right about each image, and its error of age, both float64 (runs, images).

    The images are those whose label all runs predict. The third item has the subjects' numbers of these images, for
    gender and for age.
    """
    of_all = [run.predictions for runs in groups for run in runs]
    clusters = clusters_of(of_all[0].subject)
    known = np.logical_and.reduce([one.gender_known for one in of_all])
    aged = np.logical_and.reduce([one.age_known for one in of_all])
    right = [
        np.array([(run.predictions.prediction == run.predictions.label)[known] for run in runs], dtype=np.float64)
        for runs in groups
    ]
    errors = [
        np.array([np.abs(run.predictions.age_prediction - run.predictions.age)[aged] for run in runs], dtype=np.float64)
        for runs in groups
    ]
    return right, errors, [clusters[known], clusters[aged]]


def spread(values: Floats, clusters: npt.NDArray[np.int64]) -> Spread | None:
    """Scores (runs, images) as one; None of a single run, or without images."""
    if len(values) < 2 or not values.size:
        return None
    mean, _ = t_interval(float(values.mean()), [of_seeds(values), of_images(values.mean(axis=0), clusters)])
    return Spread(mean=mean, deviation=float(values.mean(axis=1).std(ddof=1)))


def difference_terms(first: Floats, second: Floats, clusters: npt.NDArray[np.int64], same_seeds: bool) -> list[Term]:
    """The variance of the difference of two models' means: scores (runs, images)."""
    seeds = [of_seeds(first - second)] if same_seeds else [of_seeds(first), of_seeds(second)]
    return [*seeds, of_images(first.mean(axis=0) - second.mean(axis=0), clusters)]


def group_verdict(pair: GroupPair, *, alone: bool) -> str:
    """A sentence: one of two models is more accurate, they are equally accurate, or it is unclear and why.

    One is if the interval of the difference excludes zero and, of several pairs, Holm's p is below 0.05 too; they are
    equally accurate if it lies within half a point. `alone`: it is the only pair. Both must predict gender.
    """
    assert pair.accuracy
    score = pair.accuracy
    better, worse = (pair.first, pair.second) if score.value > 0 else (pair.second, pair.first)
    either = f"Whether {pair.first} or {pair.second} is more accurate is unclear"
    if math.isnan(score.low):
        if score.value == 0 and min(pair.seeds) > 1:
            return f"{pair.first} and {pair.second} are right about the same images."
        single = " and ".join(
            name for name, seeds in zip((pair.first, pair.second), pair.seeds, strict=True) if seeds == 1
        )
        return f"{either}: train {single} with other seeds too." if single else f"{either} with so few images."
    if (score.low > 0 or score.high < 0) and (alone or pair.p_holm < SIGNIFICANT):
        points = abs(score.value) * 100
        return f"{better} is more accurate than {worse}, by {points:.2f} points: more than chance of seeds and images."
    if score.low >= -HALF_A_POINT and score.high <= HALF_A_POINT:
        return f"{pair.first} and {pair.second} are equally accurate, to within half a point."
    first, second = pair.seeds
    seeds = plural(first, "seed") if first == second else f"{first} and {plural(second, 'seed')}"
    if 0 < pair.needed <= min(pair.seeds):
        ends = f"between {100 * score.low:+.2f} and {100 * score.high:+.2f} points"
        return f"{either} with {seeds}: the difference is {ends}."
    if pair.needed:
        return f"{either} with {seeds}: about {pair.needed} of each would show half a point."
    return f"{either} with {seeds} on {plural(pair.images, 'image')}: more images are needed to show half a point."
