"""What is known of every image of a source once all chunks were looked at: rows and lines of labels, read by number."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from shard_tools.look import SEEN, Chunk, Seen, Work
from shard_tools.split import Numbers

_BLOCK = 1 << 16


class Catalogue:
    """The rows and the labels of all images, in two files that are read where they are needed and never as a whole."""

    def __init__(self, directory: Path) -> None:
        self.rows_path = directory / "rows.bin"
        self.lines_path = directory / "lines.jsonl"
        self.rows_file = os.open(self.rows_path, os.O_RDONLY)
        self.lines_file = os.open(self.lines_path, os.O_RDONLY)
        self.size = os.fstat(self.rows_file).st_size // SEEN.itemsize

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.rows_file)
        os.close(self.lines_file)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One field of `SEEN` of all images, shape (images,)."""
        column = np.empty(self.size, dtype=SEEN[name])
        for start in range(0, self.size, _BLOCK):
            size = min(_BLOCK, self.size - start) * SEEN.itemsize
            block = os.pread(self.rows_file, size, start * SEEN.itemsize)
            column[start : start + _BLOCK] = np.frombuffer(block, dtype=SEEN)[name]
        return column

    def rows(self, numbers: Iterable[int]) -> Seen:
        """The rows of some images, an array of `SEEN` in their order."""
        size = SEEN.itemsize
        return np.frombuffer(b"".join([os.pread(self.rows_file, size, n * size) for n in numbers]), dtype=SEEN)

    def lines(self, rows: Seen) -> list[bytes]:
        """The lines of labels of some rows, without their line ends."""
        places = zip(rows["line"].tolist(), rows["start"].tolist(), strict=True)
        return [os.pread(self.lines_file, length, start) for length, start in places]

    def labels(self, numbers: Numbers) -> Iterator[dict[str, Any]]:
        """The labels of some images; of a rejected one `row`, `source` and `rejected`, the reason."""
        for start in range(0, len(numbers), _BLOCK):
            yield from map(json.loads, self.lines(self.rows(numbers[start : start + _BLOCK].tolist())))


def gather(work: Work, chunks: Iterable[Chunk]) -> str:
    """Puts the findings of all chunks together for `Catalogue(work.directory)`; returns their digest."""
    digest = hashlib.sha256()
    base = 0
    with (work.directory / "rows.bin").open("wb") as rows, (work.directory / "lines.jsonl").open("wb") as lines:
        for chunk in chunks:
            found = np.fromfile(work.looked(chunk, ".rows"), dtype=SEEN)
            text = work.looked(chunk, ".jsonl").read_bytes()
            found["start"] += base
            base += len(text)
            for content, file in ((found.tobytes(), rows), (text, lines)):
                digest.update(content)
                file.write(content)
    return digest.hexdigest()
