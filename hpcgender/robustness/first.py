"""Which group a corruption harms first: the lowest severity with which one lost more than by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hpcgender.evaluate.groups import SMALL, Column
from hpcgender.evaluate.predictions import Labels, Mask
from hpcgender.evaluate.resample import Floats, Z, parts, resampled_sums
from hpcgender.evaluate.results import Measure, Score
from hpcgender.robustness.corruptions import SEVERITIES
from hpcgender.robustness.results import FirstHarmed


class Members(NamedTuple):
    """A group, and which of n images are of it."""

    column: str
    value: str
    images: Mask
    """(n,)"""
    unsure: float
    """The error of a mean that is the same in every draw; see `hpcgender.evaluate.groups.differences_of`."""


def first_harmed(
    columns: Mapping[str, Column], clusters: Labels, lost: Mapping[str, Floats], measure: Measure
) -> dict[str, FirstHarmed]:
    """By the names of the corruptions that harm a group; `lost` has what each image lost by severity, (n, 5), of each.

    Intervals hold for all groups that are not small, all columns, severities and corruptions at once, by the largest
    error that any of them has in each draw of the bootstrap (see `hpcgender.evaluate.groups.differences_of`).
    """
    groups = members_of(columns, clusters, measure)
    if not groups:
        return {}
    inside = np.column_stack([group.images for group in groups]).astype(np.float64)
    drawn_images = resampled_sums(inside, clusters)
    unsure = np.array([group.unsure for group in groups])
    means: dict[tuple[str, int], tuple[Floats, Floats]] = {}
    most = np.zeros(len(drawn_images))
    for name, of_severities in lost.items():
        for severity, of_images in zip(SEVERITIES, of_severities.T, strict=True):
            summed = inside * of_images[:, None]
            mean = summed.sum(0) / inside.sum(0)
            off = np.abs(parts(resampled_sums(summed, clusters), drawn_images) - mean)
            error = np.sqrt(np.mean(off**2, axis=0) + np.where(np.ptp(off, axis=0) == 0, unsure, 0.0) ** 2)
            most = np.maximum(most, (off[:, error > 0] / error[error > 0]).max(axis=1, initial=0.0))
            means[name, severity] = mean, error
    wide = max(float(np.quantile(most, 0.95)), Z)
    found: dict[str, FirstHarmed] = {}
    for (name, severity), (mean, error) in means.items():  # by rising severity
        harmed = np.where(mean - wide * error > 0, mean, -np.inf)
        place = int(harmed.argmax())
        if harmed[place] > 0 and name not in found:
            value, half = float(mean[place]), wide * float(error[place])
            score = Score(value=value, low=value - half, high=value + half)
            of = groups[place]
            found[name] = FirstHarmed(column=of.column, value=of.value, measure=measure, severity=severity, lost=score)
    return found


def members_of(columns: Mapping[str, Column], clusters: Labels, measure: Measure) -> list[Members]:
    """The groups of each column that has two which are not small."""
    found = []
    for name, column in columns.items():
        large = []
        for code, value in enumerate(column.values):
            images = column.codes == code
            count = len(np.unique(clusters[images]))
            if count >= SMALL:
                large.append(Members(name, value, images, Z / (count + Z**2) if measure == "accuracy_lost" else 0.0))
        found += large if len(large) > 1 else []
    return found
