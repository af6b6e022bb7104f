"""Whether data sets have the labels to train and validate tasks. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest

ROWS = 65_536
"""Rows of an index that are read together: the first of them mostly have an age already."""


def check_trainable(
    manifests: Sequence[Manifest],
    tasks: Collection[str],
    validated: Sequence[Manifest],
    val_split: str,
) -> None:
    """Raises UserError unless the data sets of a training have what its tasks need.

    Each needs images in `train`, and one of the `validated` data sets in `val_split`, unless there are
    none; all together need in both splits both classes for the task gender, and ages for the task age.
    """
    for name, of in (("train", manifests), (val_split, validated)) if validated else (("train", manifests),):
        having = [manifest for manifest in of if name in manifest.splits]
        lacking = [manifest for manifest in of if name not in manifest.splits]
        trains = of is manifests and name == "train"
        if lacking if trains else not having:
            others = ", ".join(f"{split.name} {split.samples}" for split in lacking[0].splits.values())
            where = f"{lacking[0].root} has no"
            if trains:
                raise UserError(f"{where} training images (it has {others}): pack it again with images for training")
            what = "validation" if name == "val" else name
            raise UserError(
                f"{where} {what} images (it has {others}): pack it again with --val 0.1, or give another --val-split, "
                "none, or --val-data"
            )
        where = " and ".join(str(manifest.root) for manifest in having)
        counts = Counter[str]()
        for manifest in having:
            counts.update(manifest.splits[name].counts)
        if "gender" in tasks and not all(counts.values()):
            none = " and no ".join(gender for gender, count in counts.items() if not count)
            known = "".join(f", but {count} {gender}" for gender, count in counts.items() if count)
            raise UserError(
                f"{name} in {where} has no {none} images{known}: gender needs both classes in train"
                f"{f' and {val_split}' if validated else ''}; correct labels or splits and pack again, or leave gender "
                "out of --tasks"
            )
        if "age" in tasks and not any(has_ages(manifest, name) for manifest in having):
            raise UserError(
                f"{name} in {where} has no image of known age: leave age out of --tasks, or pack it again with ages"
            )


def has_ages(manifest: Manifest, split: str) -> bool:
    """Whether the age of any image is known. Its index is read only as far as needed, and not checked."""
    from shard_tools.index import read_index

    ages = read_index(manifest.index_path(split), manifest.split(split).samples)["age"]
    return any((ages[begin : begin + ROWS] >= 0).any() for begin in range(0, len(ages), ROWS))
