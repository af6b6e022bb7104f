"""Scores by group: the columns that define groups, a score of each of their values, and the largest gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hpcgender.evaluate.predictions import Labels, Predictions, Texts
from hpcgender.evaluate.resample import (
    DRAWS,
    Floats,
    Z,
    clusters_of,
    count_subjects,
    drawn_score,
    parts,
    proportion_score,
    resampled_sums,
)
from hpcgender.evaluate.results import Gap, Group, GroupTable, Measure, Score
from shard_tools.manifest import CLASSES

SMALL = 30
"""Subjects, or images without one, under which a group is small."""


@dataclass(frozen=True)
class Column:
    """A column of n images: its different values, and for each image the place of its value, -1 unknown."""

    values: tuple[str, ...]
    codes: Labels


def columns_of(predictions: Predictions) -> dict[str, Column]:
    """The columns that tables are made by, by their names: those of the labels, and those of the user's table.

    A column without any value is left out.
    """
    gender = np.array([*CLASSES, ""], dtype=object)[predictions.label]
    decades = [
        f"{age // 10 * 10:.0f}-{age // 10 * 10 + 9:.0f}" if age == age else "" for age in predictions.age.tolist()
    ]
    both = [f"{g} x {group}" if g and group else "" for g, group in zip(gender, predictions.group, strict=True)]
    columns: dict[str, Texts] = {
        "gender": gender,
        "group": predictions.group,
        "age decade": np.array(decades, dtype=object),
        "gender x group": np.array(both, dtype=object),
        **predictions.more,
    }
    coded = {name: coded_column(texts) for name, texts in columns.items()}
    return {name: column for name, column in coded.items() if column.values}


def coded_column(texts: Texts) -> Column:
    """A column of texts, where the empty one is unknown; values in order, those that begin with a number by that."""
    values = sorted(set(texts.tolist()) - {""}, key=_rank)
    place = {value: number for number, value in enumerate(values)}
    return Column(tuple(values), np.array([place.get(text, -1) for text in texts.tolist()], dtype=np.int64))


def _rank(value: str) -> tuple[float, str]:
    head = value.split("-")[0]
    return (float(head) if head.isdecimal() else np.inf, value)


def group_tables(
    predictions: Predictions, columns: Mapping[str, Column], score: Floats, measure: Measure
) -> tuple[GroupTable, ...]:
    """A table for each column: means of `score` (n,) by value; the interval of a gap holds for all pairs of its table.

    A score is 1 if correct, or the part of several runs that are; or the error in years; or what was lost.
    """
    return tuple(means.table(means.most) for means in group_means(predictions, columns, score, measure))


def joint_group_tables(
    predictions: Predictions, columns: Mapping[str, Column], scores: Floats, measure: Measure
) -> tuple[tuple[GroupTable, ...], ...]:
    """The same of each column of scores (n, k); the interval of a gap holds for all pairs of all of these tables."""
    means = [group_means(predictions, columns, score, measure) for score in scores.T]
    most = np.max([one.most for several in means for one in several], axis=0, initial=0.0)
    return tuple(tuple(one.table(most) for one in several) for several in means)


def group_means(
    predictions: Predictions, columns: Mapping[str, Column], score: Floats, measure: Measure
) -> list[GroupMeans]:
    """What tables are made of, for each column. The draws of all calls with the same images are the same."""
    clusters = clusters_of(predictions.subject)
    features = []
    for column in columns.values():
        members = column.codes[:, None] == np.arange(len(column.values))
        features += [members, members * score[:, None]]
    sums = resampled_sums(np.concatenate(features, axis=1, dtype=np.float64), clusters)
    ends = np.cumsum([2 * len(column.values) for column in columns.values()])
    return [
        means_by(name, column, predictions.subject, clusters, score, drawn, measure)
        for (name, column), drawn in zip(columns.items(), np.split(sums, ends[:-1], axis=1), strict=True)
    ]


def means_by(
    name: str, column: Column, subjects: Texts, clusters: Labels, score: Floats, drawn: Floats, measure: Measure
) -> GroupMeans:
    """Of one column; `drawn` has the images and the sums of each value's scores in every draw, (draws, 2 values)."""
    groups, units, means = [], [], []
    for code, value in enumerate(column.values):
        chosen = column.codes == code
        images, known = int(np.count_nonzero(chosen)), count_subjects(subjects[chosen])
        if not images:
            continue
        total, summed = drawn[:, code], drawn[:, len(column.values) + code]
        if measure == "accuracy":
            estimate = proportion_score(float(score[chosen].sum()), images, known, summed, total)
        else:
            estimate = drawn_score(float(score[chosen].mean()), parts(summed, total))
        units.append(len(np.unique(clusters[chosen])))
        means.append(parts(summed, total))
        groups.append(Group(value=value, images=images, subjects=known, score=estimate, small=units[-1] < SMALL))
    large = [place for place, group in enumerate(groups) if not group.small]
    return GroupMeans(
        column=name,
        measure=measure,
        groups=tuple(groups),
        unknown=int(np.count_nonzero(column.codes < 0)),
        differences=differences_of(
            [groups[place] for place in large],
            [units[place] for place in large],
            np.column_stack([means[place] for place in large]) if large else np.zeros((DRAWS, 0)),
            measure,
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupMeans:
    """The scores of groups, and what the interval of their largest gap needs."""

    column: str
    measure: Measure
    groups: tuple[Group, ...]
    unknown: int
    differences: Differences

    @property
    def most(self) -> Floats:
        return self.differences.most

    def table(self, most: Floats) -> GroupTable:
        """The table, whose gap has an interval by `most`."""
        gap = self.differences.largest(most) if len(self.differences.groups) > 1 else None
        return GroupTable(column=self.column, measure=self.measure, groups=self.groups, unknown=self.unknown, gap=gap)


@dataclass(frozen=True, kw_only=True, eq=False)
class Differences:
    """The differences of groups' scores."""

    groups: tuple[Group, ...]
    measure: Measure
    errors: Mapping[tuple[int, int], float]
    """Standard errors of pairs."""
    most: Floats
    """By how many of these the most extreme pair's difference is off its own, in each draw (draws,)."""

    def largest(self, most: Floats) -> Gap:
        """The largest difference. Its interval is simultaneous for all pairs that `most` (draws,) is the extreme of."""
        values = np.array([group.score.value for group in self.groups])
        ascending = np.argsort(values, kind="stable").tolist()
        low, high = ascending[0], ascending[-1]
        half = max(float(np.quantile(most, 0.95)), Z) * self.errors[min(low, high), max(low, high)]
        gap = float(values[high] - values[low])
        ends = (self.groups[high], self.groups[low])
        best, worst = ends if self.measure == "accuracy" else ends[::-1]
        return Gap(
            best=best.value,
            worst=worst.value,
            score=Score(value=gap, low=gap - half, high=gap + half),
            excludes_zero=gap - half > 0,
        )


def differences_of(groups: Sequence[Group], units: Sequence[int], drawn: Floats, measure: Measure) -> Differences:
    """Of all pairs of groups; `drawn` are their scores in every draw, (draws, groups).

    An interval that is to hold for all pairs is as many standard errors wide as the most extreme pair's difference is
    off its own in 95 % of the draws (the bootstrap's max-|t|; Westfall & Young, Resampling-Based Multiple Testing,
    1993). The largest of many differences would otherwise exclude zero by chance.

    A group whose images are all classified correctly, or all wrongly, or of which none changed, is the same in every
    draw. There Wilson's interval bounds its error: of n images none of which is another, a part of Z**2 / (n + Z**2)
    may be, and each changes the mean by at most 1.
    """
    values = np.array([group.score.value for group in groups])
    fraction = measure in ("accuracy", "accuracy_lost")
    same = drawn.min(0) == drawn.max(0)
    unsure = [Z / (n + Z**2) if fraction and certain else 0.0 for certain, n in zip(same.tolist(), units, strict=True)]
    most = np.zeros(len(drawn))
    errors: dict[tuple[int, int], float] = {}
    for a, b in combinations(range(len(groups)), 2):
        off = np.abs(drawn[:, a] - drawn[:, b] - (values[a] - values[b]))
        errors[a, b] = float(np.sqrt(np.mean(off**2) + unsure[a] ** 2 + unsure[b] ** 2))
        if errors[a, b]:
            most = np.maximum(most, off / errors[a, b])
    return Differences(groups=tuple(groups), measure=measure, errors=errors, most=most)
