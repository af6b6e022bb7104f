"""The images of one split of one or several data sets, numbered through: which lies where, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Samples
from shard_tools.index import Index
from shard_tools.manifest import Manifest

_WHERE = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("length", "<u4")])


class SplitImages:
    """The images of a split, those of the first data set first, in the order of their indexes."""

    def __init__(self, manifests: Sequence[Manifest], split: str) -> None:
        self.manifests, self.split = manifests, split
        self.indexes = [manifest.index(split) for manifest in manifests]
        self.first = np.cumsum([0, *map(len, self.indexes)])
        """The number of each data set's first image, and at the end that of all."""
        # No memory maps any more.
        self.gender, self.age = (np.concatenate([index[name] for index in self.indexes]) for name in ("gender", "age"))
        files = [manifest.split(split).shards for manifest in manifests]
        self.first_shard = np.cumsum([0, *map(len, files)])

    def __len__(self) -> int:
        return int(self.first[-1])

    def owner(self, samples: Samples) -> Samples:
        """The number of the data set of each sample."""
        found: Samples = np.searchsorted(self.first, samples, side="right") - 1
        return found

    def row(self, sample: int) -> np.void:
        """What the index knows of a sample; `shard` is counted within its data set."""
        of = int(self.owner(np.array([sample]))[0])
        row: np.void = self.indexes[of][sample - self.first[of]]
        return row

    def key(self, sample: int) -> str:
        return str(self.row(sample)["key"].decode())

    def file(self, sample: int) -> str:
        """A sample's shard within its data set; of several data sets after the directory's name."""
        manifest = self.manifests[int(self.owner(np.array([sample]))[0])]
        name = manifest.split(self.split).shards[self.row(sample)["shard"]].file
        return name if len(self.manifests) == 1 else f"{manifest.root.resolve().name}/{name}"

    def shard(self, sample: int) -> int:
        """The number of a sample's shard among those of all data sets."""
        return int(self.row(sample)["shard"] + self.first_shard[self.owner(np.array([sample]))[0]])

    def paths(self) -> list[Path]:
        """The shards of all data sets, in order."""
        return [path for manifest in self.manifests for path in manifest.shard_paths(self.split)]

    def where(self) -> Index | npt.NDArray[np.void]:
        """The fields `shard`, among those of all data sets, `offset` and `length` of each sample."""
        if len(self.indexes) == 1:
            return self.indexes[0]
        found = np.empty(len(self), _WHERE)
        for number, index in enumerate(self.indexes):
            part = found[self.first[number] : self.first[number + 1]]
            for name in _WHERE.names or ():
                part[name] = index[name]
            part["shard"] += np.uint32(self.first_shard[number])
        return found
