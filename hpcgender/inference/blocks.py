"""Blocks: the images that go through the network together, and files of results of so many blocks each.

Results of n images are arrays (n, ...) by name; those of a shard lie in `<name>-000000.npy`, `<other>-000000.npy`, ...
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Samples
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import write_whole
from shard_tools.base.storage import retried

Rows = dict[str, npt.NDArray[np.float32]]
"""Results of n images by name, each (n, ...)."""

MANY = 128
"""Shards that there are at least, as far as blocks allow, for ranks to share."""
MOST = 8192
"""Images that a shard has at most, or one block."""


@dataclass(frozen=True)
class Blocks:
    """Which images make up which block and which shard of results: the same for any number of ranks.

    How sums in a network are rounded depends on the batch size, so results are equal to the last bit only if the same
    images are computed together.
    """

    samples: Samples
    """The images' numbers in the index, int64, ascending."""
    keys: npt.NDArray[np.bytes_]
    """Their keys."""
    size: int
    """Images in a block; the last may have fewer."""

    @property
    def count(self) -> int:
        return -(-len(self.samples) // self.size)

    @property
    def per_shard(self) -> int:
        return max(1, min(self.count // MANY, MOST // self.size))

    @property
    def shards(self) -> int:
        return -(-self.count // self.per_shard)

    def of_shard(self, shard: int) -> range:
        """The numbers of a shard's blocks."""
        begin = shard * self.per_shard
        return range(begin, min(begin + self.per_shard, self.count))

    def images_of(self, shard: int) -> slice:
        """The places of a shard's images in `samples`."""
        blocks = self.of_shard(shard)
        return slice(blocks.start * self.size, blocks.stop * self.size)

    def block(self, number: int) -> Samples:
        """The images of a block."""
        return self.samples[number * self.size : (number + 1) * self.size]

    def place(self, samples: Samples) -> Samples:
        """The places of images in `samples`."""
        return np.searchsorted(self.samples, samples)


def shard_path(directory: Path, name: str, shard: int) -> Path:
    """The file of a shard's results of that name."""
    return directory / f"{name}-{shard:06d}.npy"


def write_shard(directory: Path, blocks: Blocks, shard: int, rows: Rows) -> None:
    """Writes a shard's results, and its keys last."""
    for name, array in {**rows, "keys": blocks.keys[blocks.images_of(shard)]}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_whole(shard_path(directory, name, shard), buffer.getvalue())


def read_shard(directory: Path, name: str, shard: int) -> npt.NDArray[np.float32]:
    """A shard's results of that name, memory-mapped; UserError if they cannot be read."""
    path = shard_path(directory, name, shard)
    try:
        rows: npt.NDArray[np.float32] = retried(partial(np.load, path, mmap_mode="r"), path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({one_line(error)}): remove the directory {directory.parent} and start again"
        ) from None
    return rows


def read_rows(directory: Path, blocks: Blocks, name: str, samples: Samples) -> npt.NDArray[np.float32]:
    """The results of some of the blocks' images, ascending: float32 (n, ...)."""
    shards = blocks.place(samples) // (blocks.per_shard * blocks.size)
    parts = [
        read_shard(directory, name, shard)[blocks.place(samples[shards == shard]) - blocks.images_of(shard).start]
        for shard in np.unique(shards).tolist()
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
