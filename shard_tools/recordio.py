"""Reads MXNet's RecordIO files without MXNet: one record at a time, with or without an `.idx`.

A record is one part, or several that are joined with the magic between them: the writer splits where the magic occurs
in the data, at a multiple of 4 bytes, and drops it. A part is

    u32 magic, u32 kind << 29 | length, data, zeros up to a multiple of 4 bytes

in little-endian order, of kind 0 for a whole record and 1, 2, 3 for the first, a middle and the last part. The data
begin with a header of 24 bytes (flag, label, id, id2) and `flag` float32 labels; the image follows. This is
`recordio.h` of dmlc-core and `recordio.py` of MXNet.
"""

from __future__ import annotations

import os
import struct
import warnings
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.base.storage import pread
from shard_tools.base.text import plural
from shard_tools.base.text_files import open_text

MAGIC = struct.pack("<I", 0xCED7230A)
HEAD = 64
"""Bytes that are read of a record before its image: room for 8 labels."""
SEARCHED = 1 << 20
"""Bytes in which the next magic is looked for at a time."""

Ints = npt.NDArray[np.int64]

_PART = struct.Struct("<4sI")
_HEADER = struct.Struct("<IfQQ")
_PART_AND_HEADER = struct.Struct("<4sIIfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


class RecordError(Exception):
    """What is wrong with a record, in which file and at which byte."""


class Header(NamedTuple):
    """What MXNet stores before an image."""

    flag: int
    """Number of labels, or 0 for a single one in the header itself."""
    labels: tuple[float, ...]
    """float32 values, so whole numbers are exact below 2^24 only."""
    id: int
    id2: int


class RecordFile:
    """A RecordIO file, open for reading at any byte offset. It is not memory-mapped: where storage fails, a read is an
    error that can be reported, and a map ends the process with SIGBUS.

    Raises OSError if it cannot be opened; each method does if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int) -> tuple[Header, bytes]:
        """Header and image of the record at a byte offset; the image may be empty. Raises RecordError if damaged."""
        # Two calls read a whole record; what has many labels, is in parts or damaged is looked at again.
        head = pread(self._fd, HEAD, offset) if offset >= 0 else b""
        if len(head) == HEAD:
            magic, word, flag, label, id1, id2 = _PART_AND_HEADER.unpack_from(head)
            start, end = _PART_AND_HEADER.size + 4 * flag, _PART.size + word
            if magic == MAGIC and start <= HEAD and start <= end and offset + end <= self.size:  # kind 0 adds no bits
                labels = struct.unpack_from(f"<{flag}f", head, _PART_AND_HEADER.size) if flag else (label,)
                return Header(flag, labels, id1, id2), self._bytes(offset, offset + start, end - start)
        return self._find(offset, with_image=True)

    def header(self, offset: int) -> Header:
        """The header of the record at a byte offset; raises RecordError if it is damaged."""
        return self._find(offset)[0]

    def offsets(self) -> Iterator[int]:
        """Byte offset of every record, in the file's order: what to read where there is no idx.

        Where the file is damaged, the offset of the damage comes as one record, which cannot be read, and the search
        continues at the next magic.
        """
        position = 0
        while position < self.size:
            yield (begin := position)
            try:
                for start, length, _ in self._parts(begin):
                    position = start + -(-length // 4) * 4
            except RecordError:
                position = self._next_magic(max(position, begin + 4))

    def _find(self, offset: int, *, with_image: bool = False) -> tuple[Header, bytes]:
        """Header of the record at `offset`, and its image if that is wanted."""
        head = pread(self._fd, HEAD, offset) if 0 <= offset <= self.size - _PART_AND_HEADER.size else b""
        if len(head) < _PART_AND_HEADER.size:
            raise self._damage(offset, f"the file ends at byte {self.size}")
        magic, word = _PART.unpack_from(head)
        if magic == MAGIC and word >> 29 == _WHOLE and _HEADER.size <= word <= self.size - offset - _PART.size:
            length = word
            data = self._bytes(offset, offset + _PART.size, length) if with_image else head[_PART.size :][:length]
        else:  # in parts, or damaged
            data = MAGIC.join(self._bytes(offset, start, length) for start, length, _ in self._parts(offset))
            length = len(data)
            if length < _HEADER.size:
                raise self._damage(offset, f"its {plural(length, 'byte is', 'bytes are')} too few for an image record")
        flag, label, id1, id2 = _HEADER.unpack_from(data)
        start = _HEADER.size + 4 * flag
        if start > length:
            raise self._damage(offset, f"it has no room for the {plural(flag, 'label')} it claims")
        if flag and len(data) < start:
            data = self._bytes(offset, offset + _PART.size, start)
        labels = struct.unpack_from(f"<{flag}f", data, _HEADER.size) if flag else (label,)
        return Header(flag, labels, id1, id2), data[start:] if with_image else b""

    def _parts(self, offset: int) -> Iterator[tuple[int, int, int]]:
        """Start, length and kind of the parts of the record at `offset`; raises RecordError if one is damaged."""
        position, expected = offset, (_WHOLE, _FIRST)
        while True:
            if position < 0 or position + _PART.size > self.size:
                raise self._damage(offset, f"the file ends at byte {self.size}, before its last part")
            magic, word = _PART.unpack(self._bytes(offset, position, _PART.size))
            kind, length = word >> 29, word & 0x1FFFFFFF
            if magic != MAGIC:
                raise self._damage(offset, f"byte {position} has no magic number")
            if kind not in expected:
                raise self._damage(offset, f"byte {position} has a part of kind {kind}")
            start = position + _PART.size
            if start + length > self.size:
                raise self._damage(
                    offset,
                    f"its {plural(length, 'byte reaches', 'bytes reach')} beyond the end of the file at {self.size}",
                )
            yield start, length, kind
            if kind in (_WHOLE, _LAST):
                return
            position, expected = start + -(-length // 4) * 4, (_MIDDLE, _LAST)

    def _next_magic(self, position: int) -> int:
        """Where the next record may begin, at `position` or after it; the file's size if nowhere."""
        while position + _PART.size <= self.size:
            piece = pread(self._fd, SEARCHED, position)
            at = piece.find(MAGIC)
            if at < 0 or at + _PART.size > len(piece):  # a magic may begin in its last bytes
                if len(piece) < SEARCHED:
                    break
                position += at if at >= 0 else len(piece) - len(MAGIC) + 1
                continue
            position += at
            kind = _PART.unpack_from(piece, at)[1] >> 29
            if position % 4 == 0 and kind in (_WHOLE, _FIRST):
                return position
            position += 1
        return self.size

    def _bytes(self, offset: int, start: int, size: int) -> bytes:
        """`size` bytes of the record at `offset`; raises RecordError if the file has become shorter."""
        data = pread(self._fd, size, start)
        if len(data) < size:
            raise self._damage(
                offset, f"the file, of {plural(self.size, 'byte')} when it was opened, has become shorter"
            )
        return data

    def _damage(self, offset: int, what: str) -> RecordError:
        return RecordError(f"{self.path.name} has no whole record at byte {offset}: {what}")


def read_index(path: Path) -> tuple[Ints, Ints]:
    """Keys and byte offsets of an `.idx` (text lines `key<TAB>offset`, in any order), int64 arrays of one shape.

    Raises UserError if it has no lines or one that is not two whole numbers, OSError if it cannot be read.
    """
    with open_text(path) as file:
        encoding = file.encoding
    with suppress(ValueError), warnings.catch_warnings():  # the error is raised below, with the line
        warnings.simplefilter("ignore")
        pairs = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding=encoding)
        if len(pairs) and pairs.shape[1] == 2:
            return pairs[:, 0], pairs[:, 1]
    with open_text(path, errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not (len(line.split()) == 2 and all(map(is_whole, line.split()))):
                shown = line.strip()[:80]
                raise UserError(f"{path}: line {number} is not `key offset` but {shown!r}: write the idx again")
    raise UserError(f"{path} has no lines `key offset`: move it away to go by the records alone")


def is_whole(text: str) -> bool:
    """Whether a text is a whole number of 64 bits."""
    try:
        return -(2**63) <= int(text) < 2**63
    except ValueError:
        return False
