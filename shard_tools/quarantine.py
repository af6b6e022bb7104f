"""Lists to review: the images left out and why, and the pictures whose copies have different labels."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np

from shard_tools.base.files import whole_text, write_whole
from shard_tools.catalogue import Catalogue
from shard_tools.images import ImageError
from shard_tools.manifest import CLASSES
from shard_tools.plan import Plan
from shard_tools.sources import Record, Source

MAX_COPIES = 1000
MAX_COPY_BYTES = 16_000_000


def write_quarantine(source: Source, catalogue: Catalogue, plan: Plan) -> None:
    """Lists the images that were left out in quarantine/quarantine.csv, and copies the first 1000 of at most 16 MB.

    Writes nothing if there are none. An image that cannot be read has no copy.
    """
    directory = source.out / "quarantine"
    shutil.rmtree(directory, ignore_errors=True)  # of a run that was killed
    if not len(plan.rejected):
        return
    directory.mkdir()
    with (directory / "quarantine.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "source", "reason", "copy"))
        numbers = plan.rejected.tolist()
        ats = catalogue.rows(numbers)["at"].tolist()
        copies = 0
        for at, line in zip(ats, catalogue.labels(plan.rejected), strict=True):
            copy = ""
            if copies < MAX_COPIES:
                copy = _copy(source, Record(line["row"], line["source"], at=at), directory)
                copies += bool(copy)
            writer.writerow((line["row"], line["source"], line["rejected"], copy))


def _copy(source: Source, record: Record, directory: Path) -> str:
    """The name of the copy of an image; empty if there is none."""
    try:
        encoded = source.read(record)
    except (OSError, ImageError):
        return ""  # the list says why it is here
    if len(encoded) > MAX_COPY_BYTES:
        return ""
    name = f"{record.row:08d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', record.name.rpartition('/')[2])[-100:]}"
    write_whole(directory / name, encoded)
    return name


def write_contradictions(out: Path, catalogue: Catalogue, plan: Plan) -> None:
    """Lists the copies of a picture that are labelled female here and male there in contradictions.csv, if any."""
    path = out / "contradictions.csv"
    path.unlink(missing_ok=True)
    if not len(plan.contradicting):
        return
    order = np.lexsort((plan.contradicting, plan.pictures))
    with whole_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("picture", "row", "source", "gender", "age"))
        for picture, label in zip(
            plan.pictures[order].tolist(), catalogue.labels(plan.contradicting[order]), strict=True
        ):
            writer.writerow((picture, label["row"], label["source"], CLASSES[label["gender"]], label["age"]))
