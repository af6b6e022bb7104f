"""A packed data set as a CSV file with a row per image, which `shard-tools pack table --mapping packed` takes back."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from shard_tools.base.errors import UserError
from shard_tools.base.files import whole_text
from shard_tools.base.storage import unreadable
from shard_tools.inspect.sample import labels_in
from shard_tools.manifest import Manifest
from shard_tools.sources.values import no_formula

COLUMNS = ("file", "split", "gender", "age", "subject", "group", "key")


def write_rows(path: Path, manifest: Manifest, splits: Sequence[str]) -> None:
    """Writes a row for each image of some splits, in the order of the shards, whole or not at all.

    Unknown labels are empty, genders words, ages years. `file` is where the source had the image, which is in the JSON
    beside it: all tars are read. What spreadsheets would take for a formula begins with ./ if it is a file, and else
    with an apostrophe. UserError if a tar cannot be read.
    """
    with whole_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in splits:
            writer.writerows(_rows(manifest, split))


def _rows(manifest: Manifest, split: str) -> Iterator[tuple[str, ...]]:
    index = manifest.index(split)
    for number, path in enumerate(manifest.shard_paths(split)):
        begin, end = index["shard"].searchsorted([number, number + 1]).tolist()
        try:
            with path.open("rb") as tar:
                for row in index[begin:end]:
                    label = labels_in(tar, path, row)
                    gender, name = int(row["gender"]), str(label["source"])
                    age = str(row["age"]).removesuffix(".0")  # the shortest text that is this float32
                    yield (
                        name if no_formula(name) == name and name == name.strip() else f"./{name}",
                        split,
                        manifest.classes[gender] if gender >= 0 else "",
                        age if row["age"] >= 0 else "",
                        no_formula(str(label["subject"])),
                        no_formula(str(label["group"])),
                        no_formula(row["key"].decode()),
                    )
        except OSError as error:
            raise unreadable(error, path) from None
        except KeyError as error:
            raise UserError(
                f"a JSON in {path} has no {error.args[0]}: look with shard-tools verify {path.parents[1]}"
            ) from None
