"""Scores by group: the columns that define groups, a score of each of their values, and the largest gap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hpcgender.evaluate.predictions import Labels, Predictions, Texts
from hpcgender.evaluate.resample import (
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
    """A table for each column: means of `score` (n,) by value.

    A score is 1 if correct, or the part of several runs that are; or the error in years; or what was lost.
    """
    clusters = clusters_of(predictions.subject)
    features = []
    for column in columns.values():
        members = column.codes[:, None] == np.arange(len(column.values))
        features += [members, members * score[:, None]]
    sums = resampled_sums(np.concatenate(features, axis=1).astype(np.float64), clusters)
    ends = np.cumsum([2 * len(column.values) for column in columns.values()])
    return tuple(
        group_table(name, column, predictions.subject, clusters, score, drawn, measure)
        for (name, column), drawn in zip(columns.items(), np.split(sums, ends[:-1], axis=1), strict=True)
    )


def group_table(
    name: str, column: Column, subjects: Texts, clusters: Labels, score: Floats, drawn: Floats, measure: Measure
) -> GroupTable:
    """One table; `drawn` has the images and the sums of the scores of each value in every draw, (draws, 2 values)."""
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
    gap = None
    if len(large) > 1:
        drawn_means = np.column_stack([means[place] for place in large])
        gap = largest_gap([groups[place] for place in large], [units[place] for place in large], drawn_means, measure)
    unknown = int(np.count_nonzero(column.codes < 0))
    return GroupTable(column=name, measure=measure, groups=tuple(groups), unknown=unknown, gap=gap)


def largest_gap(groups: list[Group], units: list[int], drawn: Floats, measure: Measure) -> Gap:
    """The largest difference of the groups' scores; `drawn` are these in every draw, (draws, groups).

    The interval is simultaneous for all pairs: as many standard errors wide as the most extreme pair's difference is
    off its own in 95 % of the draws (the bootstrap's max-|t|; Westfall & Young, Resampling-Based Multiple Testing,
    1993). The largest of many differences would otherwise exclude zero by chance. A group whose
    images are all classified correctly, or all wrongly, is the same in every draw: Wilson's interval bounds its error.
    """
    values = np.array([group.score.value for group in groups])
    unsure = [
        Z / (n + Z**2) if measure == "accuracy" and v in (0, 1) else 0.0 for v, n in zip(values, units, strict=True)
    ]
    most = np.zeros(len(drawn))
    errors: dict[tuple[int, int], float] = {}
    for a, b in combinations(range(len(groups)), 2):
        off = np.abs(drawn[:, a] - drawn[:, b] - (values[a] - values[b]))
        errors[a, b] = float(np.sqrt(np.mean(off**2) + unsure[a] ** 2 + unsure[b] ** 2))
        if errors[a, b]:
            most = np.maximum(most, off / errors[a, b])
    ascending = np.argsort(values, kind="stable").tolist()
    low, high = ascending[0], ascending[-1]
    half = max(float(np.quantile(most, 0.95)), Z) * errors[min(low, high), max(low, high)]
    gap = float(values[high] - values[low])
    best, worst = (groups[high], groups[low]) if measure == "accuracy" else (groups[low], groups[high])
    return Gap(
        best=best.value,
        worst=worst.value,
        score=Score(value=gap, low=gap - half, high=gap + half),
        excludes_zero=gap - half > 0,
    )
