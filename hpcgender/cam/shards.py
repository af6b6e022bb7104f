"""Results of images in shards: `maps-000000.npy`, `log_odds-000000.npy`, ... for so many neighbouring images each."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Samples
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import write_whole

Rows = dict[str, npt.NDArray[np.float32]]
"""Results of n images by name, each (n, ...)."""

MANY = 128
"""Shards that there are at least, as far as batches allow, for ranks to share."""
MOST = 8192
"""Images that a shard has at most, or one batch."""


@dataclass(frozen=True)
class Plan:
    """Which images make up which batch and shard: the same for any number of ranks.

    A batch is what the network sees at once, so it is what makes results the same to the last bit.
    """

    samples: Samples
    """The images' numbers in the index, int64, ascending."""
    keys: npt.NDArray[np.bytes_]
    """Their keys."""
    batch_size: int

    @property
    def batches(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    @property
    def batches_per_shard(self) -> int:
        return max(1, min(self.batches // MANY, MOST // self.batch_size))

    @property
    def shards(self) -> int:
        return -(-self.batches // self.batches_per_shard)

    def batches_of(self, shard: int) -> range:
        """The numbers of a shard's batches."""
        begin = shard * self.batches_per_shard
        return range(begin, min(begin + self.batches_per_shard, self.batches))

    def images_of(self, shard: int) -> slice:
        """The places of a shard's images in `samples`."""
        batches = self.batches_of(shard)
        return slice(batches.start * self.batch_size, batches.stop * self.batch_size)

    def batch(self, number: int) -> Samples:
        """The images of a batch."""
        return self.samples[number * self.batch_size : (number + 1) * self.batch_size]

    def place(self, samples: Samples) -> Samples:
        """The places of images in `samples`."""
        return np.searchsorted(self.samples, samples)


def shard_path(folder: Path, name: str, shard: int) -> Path:
    """Where the results of that name lie."""
    return folder / f"{name}-{shard:06d}.npy"


def write_shard(folder: Path, plan: Plan, shard: int, rows: Rows) -> None:
    """Writes a shard's results and keys."""
    for name, array in {**rows, "keys": plan.keys[plan.images_of(shard)]}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_whole(shard_path(folder, name, shard), buffer.getvalue())


def read_shard(folder: Path, name: str, shard: int) -> npt.NDArray[np.float32]:
    """A shard's results of that name, memory-mapped; UserError if they cannot be read."""
    path = shard_path(folder, name, shard)
    try:
        rows: npt.NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({one_line(error)}): remove the directory {folder.parent} and begin anew"
        ) from None
    return rows


def read_rows(folder: Path, plan: Plan, name: str, samples: Samples) -> npt.NDArray[np.float32]:
    """The results of images of the plan, ascending: float32 (n, ...)."""
    shards = plan.place(samples) // (plan.batches_per_shard * plan.batch_size)
    parts = [
        read_shard(folder, name, shard)[plan.place(samples[shards == shard]) - plan.images_of(shard).start]
        for shard in np.unique(shards).tolist()
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
