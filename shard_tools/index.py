"""The index of a split: where each of its samples lies, and what is known of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.base.storage import retried, unreadable

Index = npt.NDArray[np.void]


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
    """The index in a file, memory-mapped; UserError if it cannot be read or has not so many samples."""
    try:
        index: Index = retried(partial(np.load, path, mmap_mode="r"), path)
    except OSError as error:
        raise unreadable(error, path) from None
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}; pack the data set again") from None
    if len(index) != samples:
        raise UserError(f"{path} has {len(index)} samples, not {samples}: pack again")
    return index
