"""The labels of images in a table by key, held in few bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from shard_tools.base.errors import UserError, unknown
from shard_tools.sources.tabular import TableFile, open_table, own_spelling

CONTRADICTORY = -1


def open_keyed(path: Path, key: str, columns: Sequence[str]) -> tuple[TableFile, list[str]]:
    """The table in a file (CSV, TSV or Parquet), and these columns as it spells them, the key first.

    UserError if it cannot be read or lacks one of them.
    """
    table = open_table(path)
    names = [own_spelling(name, table.columns) for name in (key, *columns)]
    for name in names:
        if name not in table.columns:
            raise UserError(f"{unknown(f'column of {path}', name, table.columns)}{table.comment_note}")
    return table, names


class KeyedTable:
    """Values of some columns for each key: 12 bytes a row, besides each different combination of values."""

    def __init__(self, path: Path, key: str, columns: Sequence[str]) -> None:
        """Reads all of the table; UserError if it cannot be read, lacks a column or has no row that is whole."""
        numbers: dict[tuple[str, ...], int] = {}
        hashes, rows = array("Q"), array("i")
        self.path = path
        self.first = ""
        """The first key."""
        self._problems: dict[int, str] = {}
        table, names = open_keyed(path, key, columns)
        for row in table.rows(names):
            name, *values = row.values
            self.first = self.first or name
            number = numbers.setdefault((row.problem, *values), len(numbers))
            if row.problem:
                self._problems[number] = row.problem
            hashes.append(_hash(name))
            rows.append(number)
        if len(self._problems) == len(numbers):
            raise UserError(f"{next(iter(self._problems.values()))}, nor has any other line: mend it")
        self._values = [values[1:] for values in numbers]
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.uint64)[order]
        self._rows = np.frombuffer(rows, np.int32)[order]
        first = np.r_[True, self._hashes[1:] != self._hashes[:-1]]
        differs = self._rows != self._rows[np.flatnonzero(first)[np.cumsum(first) - 1]]
        contradictory = np.isin(self._hashes, self._hashes[differs])
        self._rows = np.where(contradictory, CONTRADICTORY, self._rows)

    def get(self, key: str) -> tuple[str, ...] | None:
        """The values of a key, in the order of the columns; None if it is not there.

        Raises ValueError with the reason if rows of the key differ, or its row is not whole.
        """
        value = np.uint64(_hash(key))
        at = int(np.searchsorted(self._hashes, value))
        if at == len(self._hashes) or self._hashes[at] != value:
            return None
        row = int(self._rows[at])
        if row == CONTRADICTORY:
            raise ValueError(f"rows of {self.path.name} contradict each other about its key")
        if row in self._problems:
            raise ValueError(self._problems[row])
        return self._values[row]


def _hash(key: str) -> int:
    """64 bits of a key: of 6 million keys, two are equal by chance once in a million tables."""
    return xxh3_64_intdigest(key.encode(errors="surrogateescape"))
