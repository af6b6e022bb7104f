"""The encoded bytes of samples: read from their shards in long spans, of which a bounded window is held in memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpcgender.data.mixture import MixedOrder
from hpcgender.data.order import Order, Places, Samples
from shard_tools.base.errors import UserError
from shard_tools.base.storage import open_files_limit, pread, retried, unreadable
from shard_tools.index import Index

Encoded = npt.NDArray[np.uint8]

READERS = 4
"""Reads at the same time, so that storage looks for one while it answers another."""


class Span(NamedTuple):
    """Neighbouring samples of one shard, and the bytes of it from the first image to the last."""

    first: int
    last: int
    begin: int
    """Where in the shard the bytes begin."""
    bytes: Encoded


class OpenFile:
    """An open file, by its number, that is closed when nobody has it any more: a thread may still read it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class ShardReader:
    """Reads samples by their numbers in the index; safe to use from threads.

    Shards are opened when first needed, and of more than `most_open` those that were read longest ago are closed.
    A shard whose storage fails is opened and read again. `remedy` is the advice for one that is missing or cut short.
    """

    def __init__(
        self,
        index: Index,
        paths: Sequence[Path],
        remedy: str = "restore or pack it again",
        most_open: int | None = None,
    ) -> None:
        # Samples lie in the order of their shards: shard s has those from first[s] to first[s + 1] - 1.
        self.first = np.searchsorted(index["shard"], np.arange(len(paths) + 1))
        self.offset = np.asarray(index["offset"]).astype(np.int64)  # no memory map any more, whose slices cost more
        self.length = np.ascontiguousarray(index["length"])
        self.paths = paths
        self.remedy = remedy
        self.most_open = most_open or max(1, open_files_limit() // 4)  # a training has two readers
        self.files: dict[int, OpenFile] = {}
        self.lock = threading.Lock()
        self.bytes_read = 0

    def read(self, first: Samples, last: Samples) -> list[list[Span]]:
        """The encoded images from each `first` to its `last`, both int64 (n,), a span for each shard they lie in.

        Raises UserError if a shard is missing or cut short, StorageError if its storage goes on failing.
        """
        shard = np.searchsorted(self.first, first, side="right") - 1
        until = np.minimum(last, self.first[shard + 1] - 1)
        begin, end = self.offset[first], self.offset[until] + self.length[until]
        spans = [
            [Span(f, u, b, self.read_bytes(s, b, e, u))]
            for f, u, s, b, e in zip(*(array.tolist() for array in (first, until, shard, begin, end)), strict=True)
        ]
        with self.lock:
            self.bytes_read += int((end - begin).sum())
        across = np.flatnonzero(until < last)
        if len(across):
            for place, rest in zip(across.tolist(), self.read(until[across] + 1, last[across]), strict=True):
                spans[place] += rest
        return spans

    def read_image(self, sample: int) -> Encoded:
        """One encoded image, uint8 (length,)."""
        ((span,),) = self.read(np.array([sample]), np.array([sample]))
        return span.bytes

    def read_bytes(self, shard: int, begin: int, end: int, sample: int) -> Encoded:
        def read() -> bytes:
            file = self.file(shard)
            try:
                return pread(file.number, end - begin, begin)
            except OSError:
                with self.lock:
                    self.files.pop(shard, None)  # to be opened again
                raise

        try:
            encoded = retried(read, self.paths[shard])
        except OSError as error:
            raise unreadable(error, self.paths[shard], self.remedy) from None
        if len(encoded) != end - begin:
            raise UserError(
                f"{self.paths[shard]} is cut short, before the end of sample {sample} at byte {end}: {self.remedy}"
            )
        return np.frombuffer(encoded, dtype=np.uint8)

    def file(self, shard: int) -> OpenFile:
        with self.lock:
            file = self.files.pop(shard, None) or OpenFile(os.open(self.paths[shard], os.O_RDONLY))
            self.files[shard] = file  # the last of them now
            while len(self.files) > self.most_open:
                del self.files[next(iter(self.files))]
            return file

    def close(self) -> None:
        """Closes the shards."""
        self.files.clear()


class Window:
    """The pieces of an epoch's order that a rank holds: at most one of each of its lanes, and those read ahead.

    The places of each step are given to `read_ahead`, and some steps later, in the same order, to `take`.
    """

    def __init__(self, reader: ShardReader, order: Order | MixedOrder) -> None:
        self.reader = reader
        self.order = order
        self.asked: set[int] = set()
        self.reading: deque[Future[dict[int, list[Span]]]] = deque()
        self.pieces: dict[int, list[Span]] = {}
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def read_ahead(self, places: Places) -> None:
        """Starts reading the pieces that are not held yet."""
        new = set(places.pieces.tolist()) - self.asked - {-1}
        self.asked |= new
        self.reading.append(self.pool.submit(self.read, sorted(new)))

    def read(self, pieces: list[int]) -> dict[int, list[Span]]:
        return dict(zip(pieces, self.reader.read(*self.order.spans(np.array(pieces, dtype=np.int64))), strict=True))

    def take(self, places: Places) -> list[Encoded]:
        """The encoded images at places that were read ahead, in turn; lets go of pieces with their last sample."""
        pieces = self.pieces
        pieces |= self.reading.popleft().result()
        begins = self.reader.offset[places.samples]
        ends = begins + self.reader.length[places.samples]
        images = []
        columns = (places.samples, places.pieces, begins, ends)
        for sample, piece, begin, end in zip(*(column.tolist() for column in columns), strict=True):
            if piece < 0:
                images.append(self.reader.read_image(sample))
                continue
            for _, last, start, encoded in pieces[piece]:  # one, but where a piece goes on in the next shard
                if sample <= last:
                    images.append(encoded[begin - start : end - start])
                    break
            else:  # or each later image would have the label of another
                raise AssertionError(f"sample {sample} lies in no span of piece {piece}")
        done = places.pieces[places.last].tolist()
        self.asked.difference_update(done)
        for piece in done:
            del pieces[piece]
        return images

    def close(self) -> None:
        """Stops reading ahead."""
        self.pool.shutdown(cancel_futures=True)
