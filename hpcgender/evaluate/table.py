"""Further labels of the images from the user's own table: any columns, found by key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcgender.evaluate import results
from hpcgender.evaluate.predictions import COLUMNS, Texts
from shard_tools.base.errors import UserError, unknown
from shard_tools.sources.tabular import TableFile, open_table

KEY = "key"
MOST = 200
"""Different values that a column may have: each is a group."""
TAKEN = (*COLUMNS, *results.COLUMNS)


def columns_to_read(path: Path, wanted: Sequence[str]) -> tuple[TableFile, tuple[str, ...]]:
    """The table in a file (CSV, TSV or Parquet) and its columns to read: `wanted`, or all but the key.

    UserError if it cannot be read, has no column `key` or none of those wanted, or one has a name that is taken.
    """
    table = open_table(path)
    if KEY not in table.columns:
        raise UserError(
            f"{path} has no column {KEY}, only {', '.join(table.columns)}: name so the one with the images' keys, "
            "which are those in predictions.csv"
        )
    columns = tuple(wanted) or tuple(name for name in table.columns if name != KEY)
    for name in columns:
        if name not in table.columns or name == KEY:
            raise unknown(f"column of {path}", name, [column for column in table.columns if column != KEY])
        if name in TAKEN:
            raise UserError(f"column {name} of {path} has the name of one that evaluations have: rename it")
    if not columns:
        raise UserError(f"{path} has no column besides {KEY}: there is nothing to group the images by")
    return table, columns


def read_columns(path: Path, wanted: Sequence[str], keys: Texts) -> dict[str, Texts]:
    """The columns' texts (n,) of n images, by the columns' names; empty for images that are not in the table.

    UserError as above, if the table contradicts itself, has none of the images, or more than 200 values in a column.
    """
    table, columns = columns_to_read(path, wanted)
    place = {key: number for number, key in enumerate(keys.tolist())}
    found: dict[int, tuple[str, ...]] = {}
    first = ""
    for row in table.rows((KEY, *columns)):
        if row.problem:
            raise UserError(f"{row.problem}: mend it")
        key, *values = row.values
        first = first or key
        number = place.get(key)
        if number is not None and found.setdefault(number, tuple(values)) != tuple(values):
            raise UserError(f"line {row.line} of {path} contradicts an earlier line about {key}: keep one of them")
    if not found:
        raise UserError(
            f"{path} has none of the images: its first key is {first!r}, one of theirs is {str(keys[0])!r}, as in "
            "predictions.csv"
        )
    if len(found) < len(keys):
        print(f"{len(keys) - len(found)} of {len(keys)} images are not in {path}")
    nothing = ("",) * len(columns)
    rows = [found.get(number, nothing) for number in range(len(keys))]
    texts = {name: np.array([row[c] for row in rows], dtype=object) for c, name in enumerate(columns)}
    for name, column in texts.items():
        if len(set(column)) > MOST:
            raise UserError(
                f"column {name} of {path} has {len(set(column))} different values, too many for groups: name columns "
                f"with at most {MOST} as --by"
            )
    return texts
