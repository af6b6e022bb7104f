"""Further labels of the images from the user's own table: any columns, found by key, or by the path of the image file.

A path is that of the packed image file, as its source has it, with any directories before it: its key follows from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcgender.evaluate import results
from hpcgender.evaluate.predictions import COLUMNS, Texts
from shard_tools.base.errors import UserError, unknown
from shard_tools.base.text import plural
from shard_tools.keys import key_of
from shard_tools.manifest import Manifest
from shard_tools.sources.tabular import TableFile, open_table, own_spelling

KEY = "key"
NAMING = (KEY, "image", "file", "path", "filename", "file_name", "image_path", "img")
"""Names of the column with the images, the first that a table has, in any case."""
MOST = 200
"""Different values that a column may have: each is a group."""
TAKEN = (*COLUMNS, *results.COLUMNS)


@dataclass(frozen=True)
class Columns:
    """A table, its column that names the images, and the columns to read."""

    table: TableFile
    naming: str
    wanted: tuple[str, ...]


def columns_to_read(path: Path, wanted: Sequence[str]) -> Columns:
    """The table in a file (CSV, TSV or Parquet) and its columns to read: `wanted`, or all but the one with the images.

    UserError if it cannot be read, has no column of NAMING or none of those wanted, or one has a name that is taken.
    """
    table = open_table(path)
    naming = next((column for name in NAMING for column in table.columns if column.lower() == name), None)
    if naming is None:
        raise UserError(
            f"{path} has no column {KEY}, image, file or path, only {', '.join(table.columns)}: name so the one with "
            "the images' keys, which are those in predictions.csv, or with the paths of their files"
        )
    others = [column for column in table.columns if column != naming]
    columns = tuple(own_spelling(name, others) for name in wanted) or tuple(others)
    for name in columns:
        if name not in others:
            raise unknown(f"column of {path}", name, others)
        if name in TAKEN:
            raise UserError(f"column {name} of {path} has the name of one that evaluations have: rename it")
    if not columns:
        raise UserError(f"{path} has no column besides {naming}: there is nothing to group the images by")
    return Columns(table, naming, columns)


def shared_keys(manifest: Manifest) -> set[str]:
    """The keys that several image files would have by their paths, of which all but one got another."""
    keys = (key for split in manifest.splits for key in manifest.index(split)["key"].tolist())
    return {key.partition(b"+")[0].decode() for key in keys if b"+" in key}


def keys_by_path(path: str) -> Iterator[str]:
    """The keys that an image file can have: without directories that the source's own is in, the longest path first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return (key_of("/".join(parts[first:])) for first in range(len(parts)))


def read_columns(path: Path, wanted: Sequence[str], keys: Texts, shared: Collection[str]) -> dict[str, Texts]:
    """The columns' texts (n,) of n images, by the columns' names; empty for images that are not in the table.

    No path is taken for an image whose key is among the `shared` ones. UserError as above, if the table contradicts
    itself, has none of the images, or more than 200 values in a column.
    """
    read = columns_to_read(path, wanted)
    columns = read.wanted
    place = {key: number for number, key in enumerate(keys.tolist())}
    found: dict[int, tuple[str, ...]] = {}
    first = ""
    ragged: list[str] = []
    for row in read.table.rows((read.naming, *columns)):
        if row.problem:
            ragged.append(row.problem)
            continue
        name, *values = row.values
        first = first or name
        number = place.get(name)
        if number is None:
            by_path = (key for key in keys_by_path(name) if key not in shared)
            number = next((place[key] for key in by_path if key in place), None)
        if number is not None and found.setdefault(number, tuple(values)) != tuple(values):
            raise UserError(f"line {row.line} of {path} contradicts an earlier line about {name}: keep one of them")
    if ragged and not found:
        raise UserError(f"{ragged[0]}: mend it")
    if ragged:
        print(f"{plural(len(ragged), 'row')} of {path} left out: {ragged[0]}")
    if not found:
        raise UserError(
            f"{path} has none of the images: its first {read.naming} is {first!r}, one of their keys is "
            f"{str(keys[0])!r}, as in predictions.csv"
        )
    if len(found) < len(keys):
        print(f"not in {path}: {len(keys) - len(found):,} of {plural(len(keys), 'image')}")
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
