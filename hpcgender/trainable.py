"""Whether data sets have the labels to train and validate tasks. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest

ROWS = 65_536
"""Rows of an index that are read together: the first of them mostly have an age already."""


def check_trainable(manifests: Sequence[Manifest], tasks: Collection[str]) -> None:
    """Raises UserError unless the data sets of a training have what its tasks need.

    Each needs images in `train`, and one of them in `val`; all together need in both splits both classes for the task
    gender, and ages for the task age.
    """
    for name in ("train", "val"):
        having = [manifest for manifest in manifests if name in manifest.splits]
        lacking = [manifest for manifest in manifests if name not in manifest.splits]
        if lacking if name == "train" else not having:
            others = ", ".join(f"{split.name} {split.samples}" for split in lacking[0].splits.values())
            remedy = "--val 0.1" if name == "val" else "images for training"
            raise UserError(
                f"{lacking[0].root} has no {'validation' if name == 'val' else 'training'} images (it has {others}): "
                f"pack it again with {remedy}"
            )
        where = " and ".join(str(manifest.root) for manifest in having)
        counts = Counter[str]()
        for manifest in having:
            counts.update(manifest.splits[name].counts)
        if "gender" in tasks and not all(counts.values()):
            none = " and no ".join(gender for gender, count in counts.items() if not count)
            known = "".join(f", but {count} {gender}" for gender, count in counts.items() if count)
            raise UserError(
                f"{name} in {where} has no {none} images{known}: gender needs both classes in train and val; "
                "correct labels or splits and pack again, or leave gender out of --tasks"
            )
        if "age" in tasks and not any(has_ages(manifest, name) for manifest in having):
            raise UserError(
                f"{name} in {where} has no image of known age: leave age out of --tasks, or pack it again with ages"
            )


def has_ages(manifest: Manifest, split: str) -> bool:
    """Whether the age of any image is known."""
    ages = manifest.index(split)["age"]
    return any((ages[begin : begin + ROWS] >= 0).any() for begin in range(0, len(ages), ROWS))
