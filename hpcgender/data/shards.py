"""The encoded bytes of samples, read from their shards in long runs, of which a bounded window is held in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Order, Places
from shard_tools.commands import UserError
from shard_tools.manifest import Index

Encoded = npt.NDArray[np.uint8]

READERS = 4
"""Reads under way at once, so that one is answered while storage looks for the next."""


class Run(NamedTuple):
    """Neighbouring samples of one shard, and the bytes of it from the first image to the last."""

    first: int
    last: int
    begin: int
    """Where in the shard the bytes begin."""
    bytes: Encoded


class ShardReader:
    """Reads samples by their numbers in the index. Shards are opened when first needed; safe to use from threads.

    `remedy` tells a user what to do about a shard that cannot be read.
    """

    def __init__(self, index: Index, paths: Sequence[Path], remedy: str = "restore or pack it again") -> None:
        # Samples lie in the order of their shards: shard s has those from first[s] to first[s + 1] - 1.
        self.first = np.searchsorted(index["shard"], np.arange(len(paths) + 1))
        self.offset = index["offset"].astype(np.int64)
        self.length = np.ascontiguousarray(index["length"])
        self.paths = paths
        self.remedy = remedy
        self.files: dict[int, int] = {}
        self.lock = threading.Lock()
        self.bytes_read = 0

    def read(self, first: int, last: int) -> list[Run]:
        """The encoded images from `first` to `last`, a run for each shard; UserError if one is missing or cut short."""
        runs = []
        while first <= last:
            shard = int(np.searchsorted(self.first, first, side="right")) - 1
            until = min(last, int(self.first[shard + 1]) - 1)
            begin = int(self.offset[first])
            length = int(self.offset[until] + self.length[until]) - begin
            try:
                encoded = os.pread(self.file(shard), length, begin)
            except OSError as error:
                raise UserError(f"cannot read {self.paths[shard]}: {error.strerror}; {self.remedy}") from None
            if len(encoded) != length:
                raise UserError(
                    f"{self.paths[shard]} is cut short, before the end of sample {until} at byte {begin + length}: "
                    f"{self.remedy}"
                )
            runs.append(Run(first, until, begin, np.frombuffer(encoded, dtype=np.uint8)))
            first = until + 1
            with self.lock:
                self.bytes_read += length
        return runs

    def image(self, runs: list[Run], sample: int) -> Encoded:
        """An encoded image out of the runs that it was read with."""
        run = runs[0]
        if sample > run.last:
            run = next(run for run in runs if sample <= run.last)
        begin = self.offset[sample] - run.begin
        return run.bytes[begin : begin + self.length[sample]]

    def file(self, shard: int) -> int:
        with self.lock:
            if shard not in self.files:
                self.files[shard] = os.open(self.paths[shard], os.O_RDONLY)
            return self.files[shard]

    def close(self) -> None:
        """Closes the shards."""
        while self.files:
            os.close(self.files.popitem()[1])


class Window:
    """The pieces of an epoch's order that a rank holds: at most one of each of its lanes, and those read ahead."""

    def __init__(self, reader: ShardReader, order: Order) -> None:
        self.reader = reader
        self.order = order
        self.pieces: dict[int, Future[list[Run]]] = {}
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def read_ahead(self, places: Places) -> None:
        """Starts reading the pieces that are not held yet."""
        for piece in np.unique(places.pieces).tolist():
            if piece >= 0 and piece not in self.pieces:
                self.pieces[piece] = self.pool.submit(self.reader.read, *self.order.span(piece))

    def take(self, places: Places) -> list[Encoded]:
        """The encoded images at places that were read ahead, in turn; lets go of pieces with their last sample."""
        images = []
        image, pieces = self.reader.image, self.pieces
        for sample, piece in zip(places.samples.tolist(), places.pieces.tolist(), strict=True):
            runs = pieces[piece].result() if piece >= 0 else self.reader.read(sample, sample)
            images.append(image(runs, sample))
        for piece in places.pieces[places.last].tolist():
            del pieces[piece]
        return images

    @property
    def bytes_held(self) -> int:
        """Bytes of the pieces that are in memory."""
        return sum(len(run.bytes) for read in list(self.pieces.values()) if read.done() for run in read.result())

    def close(self) -> None:
        """Stops reading ahead."""
        self.pool.shutdown(cancel_futures=True)
