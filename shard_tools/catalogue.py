"""What is known of every image of a source once all chunks were looked at: rows and lines of labels, read by number."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
        self.starts = np.load(directory / "starts.npy")

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

    def chunks(self, numbers: Numbers) -> list[int]:
        """The number of the chunk that each image was listed in."""
        chunks: list[int] = (np.searchsorted(self.starts, numbers, side="right") - 1).tolist()
        return chunks

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
    base = images = 0
    starts = []
    with (work.directory / "rows.bin").open("wb") as rows, (work.directory / "lines.jsonl").open("wb") as lines:
        for chunk in chunks:
            found = np.fromfile(work.looked(chunk, ".rows"), dtype=SEEN)
            text = work.looked(chunk, ".jsonl").read_bytes()
            if work.source.streamed:
                text = _number(found, text, images)
            found["start"] += base
            base += len(text)
            starts.append(images)
            images += len(found)
            for content, file in ((found.tobytes(), rows), (text, lines)):
                digest.update(content)
                file.write(content)
    np.save(work.directory / "starts.npy", np.array(starts, dtype=np.int64))
    return digest.hexdigest()


def _number(found: Seen, text: bytes, first: int) -> bytes:
    """The lines of labels of a file's images with their rows over all files, the first image's being `first`."""
    lines = [
        re.sub(rb'"row":\d+', b'"row":%d' % row, line, count=1)  # in a text of JSON the quotes would be escaped
        for row, line in enumerate(text.splitlines(keepends=True), first)
    ]
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    found["line"] = lengths - 1
    found["start"] = np.cumsum(lengths) - lengths
    return b"".join(lines)
