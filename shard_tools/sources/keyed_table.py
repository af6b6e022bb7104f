"""The labels of images in a table by key, held in few bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from shard_tools.base.errors import UserError, unknown
from shard_tools.sources.tabular import TableFile, open_table

CONTRADICTORY = -1


def open_keyed(path: Path, key: str, columns: Sequence[str]) -> TableFile:
    """The table in a file (CSV, TSV or Parquet); UserError if it cannot be read or lacks one of these columns."""
    table = open_table(path)
    for name in (key, *columns):
        if name not in table.columns:
            raise unknown(f"column of {path}", name, table.columns)
    return table


class KeyedTable:
    """Values of some columns for each key: 12 bytes a row, besides each different combination of values."""

    def __init__(self, path: Path, key: str, columns: Sequence[str]) -> None:
        """Reads all of the table; UserError if it cannot be read, lacks a column or has a row of another length."""
        numbers: dict[tuple[str, ...], int] = {}
        hashes, rows = array("Q"), array("i")
        self.first = ""
        """The first key."""
        for row in open_keyed(path, key, columns).rows((key, *columns)):
            if row.problem:
                raise UserError(f"{row.problem}: mend it")
            name, *values = row.values
            self.first = self.first or name
            hashes.append(_hash(name))
            rows.append(numbers.setdefault(tuple(values), len(numbers)))
        self._values = list(numbers)
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.uint64)[order]
        self._rows = np.frombuffer(rows, np.int32)[order]
        first = np.r_[True, self._hashes[1:] != self._hashes[:-1]]
        differs = self._rows != self._rows[np.flatnonzero(first)[np.cumsum(first) - 1]]
        contradictory = np.isin(self._hashes, self._hashes[differs])
        self._rows = np.where(contradictory, CONTRADICTORY, self._rows)

    def get(self, key: str) -> tuple[str, ...] | None:
        """The values of a key, in the order of the columns; None if it is not there.

        Raises ValueError if rows of the key differ.
        """
        value = np.uint64(_hash(key))
        at = int(np.searchsorted(self._hashes, value))
        if at == len(self._hashes) or self._hashes[at] != value:
            return None
        row = int(self._rows[at])
        if row == CONTRADICTORY:
            raise ValueError
        return self._values[row]


def _hash(key: str) -> int:
    """64 bits of a key: of 6 million keys, two are equal by chance once in a million tables."""
    return xxh3_64_intdigest(key.encode(errors="surrogateescape"))
