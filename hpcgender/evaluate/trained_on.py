"""Which of the images to evaluate lie in the training split of the model's run, byte for byte.

Hashes of the encoded bytes are compared, which the indexes of both data sets hold: no image is read. Copies with other
bytes, resized or compressed anew, are not found: `shard-tools verify --leaks` compares pictures, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcgender.data.limit import parts_of
from hpcgender.data.packs import manifests_in, places_of
from hpcgender.evaluate.predictions import Mask
from hpcgender.evaluate.results import TrainedOn
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.manifest import Manifest, read_manifest

TRAIN = "train"
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a split shares with the training split of a run."""

    trained: Mask
    """Of the split's images, in the order of its index, those that the model was trained on; none if not known."""
    facts: TrainedOn


def find_overlap(
    options: Mapping[str, Any], identified: str, evaluated: Manifest, split: str, *, leave_out: bool
) -> Overlap:
    """What a split shares with what a run was trained on, of all data sets of a mixture; with --limit its sample alone.

    `options` are the run's, and `identified` is what identifies its --data (`hpcgender.data.packs.identity`). UserError
    if such images are to be left out, and that cannot be done.
    """
    training = Path(options["data"])
    content = np.ascontiguousarray(evaluated.index(split)["content"])
    trained = np.zeros(len(content), dtype=bool)
    manifests, indexes, why = [], [], ""
    for place, digest in zip_longest(places_of(training), manifests_in(identified), fillvalue=None):
        root = place.root if place else training
        try:
            manifest = evaluated if evaluated.sha256 == digest else read_manifest(root)
            indexes.append(manifest.index(TRAIN))
            manifests.append(manifest)
            if manifest.sha256 != digest:
                why = f"the training data set {root} has been packed again since"
        except UserError:
            why = f"the training data set is no longer at {root}"
    hashes: list[Hashes] = []
    if not why:
        parts = parts_of(manifests, options["limit"], options["limit_seed"])
        for index, part in zip(indexes, parts, strict=True):
            every = np.ascontiguousarray(index["content"])
            hashes.append(every if part.chosen is None else every[part.chosen])
    if not why and not (content.any() and all(of_one.any() for of_one in hashes)):
        why = "an index has no hashes of its images"
    if not why:
        learned = np.sort(np.concatenate(hashes))
        ordered = np.sort(content)  # a million are looked up in order in a tenth of the time
        shared = ordered[among(learned, ordered) & (ordered != 0)]
        if len(shared):
            trained = among(shared, content)
    if leave_out and why:
        raise UserError(f"--without-trained cannot leave images out, because {why}: put it back, or omit the option")
    if leave_out and trained.all():
        raise UserError(f"--without-trained leaves no image of {split} in {evaluated.root}: all were trained on")
    count = None if why else int(np.count_nonzero(trained))
    return Overlap(trained=trained, facts=TrainedOn(images=count, of=len(content), why=why, left_out=leave_out))


def among(ordered: Hashes, values: Hashes) -> Mask:
    """Which of the values (n,) are among the sorted ones, of which there is at least one."""
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Mask = ordered[places] == values
    return found


def warning(facts: TrainedOn) -> str:
    """One line about images that were trained on, or may have been; empty if there are none."""
    if facts.images is None:
        return f"whether images lie in the run's training split could not be checked: {facts.why}"
    if not facts.images:
        return ""
    found = f"the run's training split has {facts.images:,} of {plural(facts.of, 'image')}, byte for byte"
    return f"{found}: left out" if facts.left_out else f"{found}, which flatters (--without-trained omits such images)"
