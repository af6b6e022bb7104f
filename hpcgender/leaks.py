"""What the data sets of a training share across splits: images or subjects that are trained on here and tested there.

Their indexes are compared as `shard-tools verify --leaks` does, but no image is decoded: copies by the hashes of their
bytes and, where packing looked at the images, of their pictures; subjects where equal ids mean the same person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, permutations
from pathlib import Path

from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.manifest import Manifest, read_manifest


def check_leaks(manifests: Sequence[Manifest], val: Manifest | None = None, val_split: str = "val") -> None:
    """Raises UserError if two data sets share images or subjects across different splits.

    `val` is that of --val-data, of which `val_split` is validated on.
    """
    found = leaks_between(manifests, val, val_split)
    if found:
        more = f" (and {plural(len(found) - 1, 'more such finding')})" if len(found) > 1 else ""
        roots = " ".join(dict.fromkeys(str(manifest.root) for manifest in (*manifests, *([val] if val else []))))
        raise UserError(
            f"{found[0]}{more}: leave them out of one, or give --allow-leaks, which all results will say; list them: "
            f"shard-tools verify {roots} --leaks"
        )


def leaks_between(
    manifests: Sequence[Manifest], val: Manifest | None = None, val_split: str = "val"
) -> tuple[str, ...]:
    """What each two of the data sets share across different splits, a line each, with numbers and examples.

    And what their training splits share with the `val_split` of `val`, whatever that is called.
    """
    roots = [(manifest.root, manifest.sha256) for manifest in manifests]
    lines = [line for first, second in combinations(roots, 2) for line in _between(first, second)]
    if val and val.sha256 not in [sha256 for _, sha256 in roots]:  # else its splits are compared already
        of_val = (val.root, val.sha256)
        lines += [line for one in roots for line in _between(one, of_val, (("train", val_split),))]
    return tuple(lines)


def subjects_not_compared(manifests: Sequence[Manifest]) -> Iterator[str]:
    """A line for each two of the data sets that have subjects, of which equal ids need not mean the same person."""
    from shard_tools.verify.leaks import has_subjects, not_compared, same_numbering

    each = {manifest.sha256: manifest for manifest in manifests}.values()
    for two in combinations(each, 2):
        if not same_numbering(*two) and all(has_subjects(map(one.index, one.splits)) for one in two):
            yield not_compared(*two)


@cache
def _between(
    first: tuple[Path, str], second: tuple[Path, str], pairs: tuple[tuple[str, str], ...] = ()
) -> tuple[str, ...]:
    """The same of two data sets, given by their directories and the SHA-256 of their manifests: compared once.

    `pairs` are a split of the first and one of the second each; if there are none, all of different names.
    """
    import numpy as np  # which would slow a submission of one data set

    from shard_tools.verify.leaks import Side, same_numbering, shared

    manifests = [read_manifest(root) for root, _ in (first, second)]
    names = ["content", "appearance"]
    if same_numbering(*manifests):
        names.append("subject")

    def side(manifest: Manifest, split: str) -> Side:
        index = manifest.index(split)
        return Side(manifest.root / split, index, {name: np.ascontiguousarray(index[name]) for name in names})

    sides = [{split: side(manifest, split) for split in manifest.splits} for manifest in manifests]
    return tuple(
        f"{sides[0][one].path} and {sides[1][other].path}: {line}"
        for one, other in pairs or permutations({**sides[0], **sides[1]}, 2)
        if one in sides[0] and other in sides[1]
        for line in shared(sides[0][one], sides[1][other])
    )
