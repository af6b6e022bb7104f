"""The index of a split: where each of its samples lies, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.storage import retried, unreadable
from shard_tools.base.text import plural

Index = npt.NDArray[np.void]

_ROWS = 1 << 20


def index_dtype(key: int, subject: int, group: int) -> np.dtype[np.void]:
    """The dtype of an index whose longest key, subject and group have so many bytes (UTF-8)."""
    return np.dtype(
        [
            ("shard", "<u4"),  # number of the shard within its split
            ("offset", "<u8"),  # of the encoded image within the tar, bytes
            ("length", "<u4"),  # of the encoded image, bytes
            ("gender", "i1"),  # 0 female, 1 male, -1 unknown
            ("age", "<f4"),  # years, -1 unknown
            ("row", "<u8"),  # number of the image in its source
            ("content", "<u8"),  # XXH3 hash of the encoded image
            ("appearance", "<u8"),  # difference hash of the picture (images.Fingerprint), 0 unknown
            ("key", f"S{max(key, 1)}"),
            ("subject", f"S{max(subject, 1)}"),
            ("group", f"S{max(group, 1)}"),
        ]
    )


def read_index(path: Path, samples: int) -> Index:
    """The index in a file, memory-mapped; UserError if it cannot be read, or is none of so many samples."""
    try:
        index: Index = retried(partial(np.lib.format.open_memmap, path, mode="r"), path)
    except OSError as error:
        raise unreadable(error, path) from None
    except Exception as error:  # a damaged header is read by a parser of Python code, which raises any exception
        raise UserError(f"cannot read {path}: {one_line(error)}; pack the data set again") from None
    if fault := fault_of(index, samples):
        raise UserError(f"{path} {fault}: pack the data set again")
    return index


def checked_index(path: Path, samples: int, bytes_of_shards: tuple[int, ...], sha256: str) -> Index:
    """The index in a file, memory-mapped, its values checked: once in a process, and again if it was packed anew.

    `sha256` is what the manifest says of it. UserError if it cannot be read, or says what cannot be.
    """
    try:
        written = retried(path.stat, path).st_mtime_ns
    except OSError as error:
        raise unreadable(error, path) from None
    _check_once(path, samples, bytes_of_shards, sha256, written)
    return read_index(path, samples)


@cache
def _check_once(path: Path, samples: int, bytes_of_shards: tuple[int, ...], sha256: str, written: int) -> None:
    check_values(read_index(path, samples), bytes_of_shards, path)


def fault_of(index: npt.NDArray[np.void], samples: int) -> str:
    """Why an array is no index of so many samples, a sentence without its subject; empty if it is one."""
    names = index.dtype.names or ()
    if names != index_dtype(1, 1, 1).names or index.dtype != index_dtype(
        *(index.dtype[name].itemsize for name in ("key", "subject", "group"))
    ):
        return "does not have the columns of an index"
    if index.shape != (samples,):
        return f"has the shape {index.shape}, the manifest says {plural(samples, 'sample')}"
    return ""


def check_values(index: Index, bytes_of_shards: Sequence[int], path: Path) -> None:
    """Raises UserError if a sample is in no shard, ends behind its own, or has a gender that there is not.

    A million rows are held at a time: the index is memory-mapped.
    """
    ends = np.array([*bytes_of_shards, 0], dtype=np.uint64)
    for start in range(0, len(index), _ROWS):
        rows = index[start : start + _ROWS]
        offset, length = (rows[name].astype(np.uint64) for name in ("offset", "length"))
        end = ends[np.minimum(rows["shard"], len(bytes_of_shards))]
        wrong = (offset >= end) | (length > end - offset) | (np.abs(rows["gender"].astype(np.int16)) > 1)
        if wrong.any():
            row = start + int(np.argmax(wrong))
            raise UserError(f"{path} is damaged, first in row {row}: look with shard-tools verify, and pack again")
