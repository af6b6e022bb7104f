"""The encoded bytes of any sample, read straight from its shard."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.commands import UserError
from shard_tools.manifest import Index

Encoded = npt.NDArray[np.uint8]


class ShardReader:
    """Reads samples by their number in the index. Shards are opened when first needed; safe to use from threads."""

    def __init__(self, index: Index, paths: list[Path]) -> None:
        self.shard = np.ascontiguousarray(index["shard"])
        self.offset = np.ascontiguousarray(index["offset"])
        self.length = np.ascontiguousarray(index["length"])
        self.paths = paths
        self.files: dict[int, int] = {}

    def read(self, samples: Iterable[int]) -> list[Encoded]:
        """The encoded images, one uint8 array each; UserError if a shard is missing or cut short."""
        images = []
        for sample in samples:
            shard, length = int(self.shard[sample]), int(self.length[sample])
            try:
                encoded = os.pread(self.file(shard), length, int(self.offset[sample]))
            except OSError as error:
                raise UserError(
                    f"cannot read {self.paths[shard]}: {error.strerror}; restore or pack it again"
                ) from None
            if len(encoded) != length:
                raise UserError(f"{self.paths[shard]} ends within sample {sample}: restore or pack it again")
            images.append(np.frombuffer(encoded, dtype=np.uint8))
        return images

    def file(self, shard: int) -> int:
        if shard not in self.files:
            self.files[shard] = os.open(self.paths[shard], os.O_RDONLY)
        return self.files[shard]

    def close(self) -> None:
        """Closes the shards."""
        while self.files:
            os.close(self.files.popitem()[1])
