"""The class weights of the gender loss, computed from the images that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpcgender.commands.train import TrainConfig
from hpcgender.data.limit import Part


def with_class_weights(config: TrainConfig, parts: Sequence[Part]) -> TrainConfig:
    """The options with numbers in place of `balanced`, which the losses need.

    The weight of a class is the number of all labelled images divided by that of its own and by that of the classes, as
    scikit-learn's `balanced`: each class has the same weight together, and an image 1 in the mean. What sampling draws
    of them does not count.
    """
    if config.class_weights != "balanced":
        return config
    counts = [sum(of_class) for of_class in zip(*(part.counts.values() for part in parts), strict=True)]
    weights = tuple(sum(counts) / (len(counts) * count) if count else 1.0 for count in counts)
    return replace(config, class_weights=weights)
