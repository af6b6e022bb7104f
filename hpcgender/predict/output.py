"""Predictions as lines, JSON, CSV, Parquet, and pictures with their heat maps."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcgender.cam.overlays import write_overlay
from hpcgender.predict.model import Prediction
from shard_tools.base.files import whole_file, whole_text
from shard_tools.base.text import printable
from shard_tools.keys import key_of, with_row

COLUMNS = (
    "image",
    "label",
    "confidence_percent",
    "probability",
    "logit",
    "age",
    "precision",
    "heat_map",
    "note",
    "error",
)


def row_of(found: Prediction, picture: Path | None = None) -> dict[str, Any]:
    """The values of COLUMNS that there are; `probability` is of male, and `heat_map` the file of the picture."""
    values = (
        found.image,
        found.label,
        round(100 * found.confidence, 2),
        found.probability,
        found.logit,
        round(found.age, 1),
        found.precision,
        str(picture or ""),
        found.note,
        found.error,
    )
    return {
        name: value
        for name, value in zip(COLUMNS, values, strict=True)
        if value != "" and not (isinstance(value, float) and math.isnan(value))
    }


def line_of(found: Prediction) -> str:
    """One line for people; empty if the image could not be used."""
    parts = [f"{found.label} {100 * found.confidence:.2f} %"] if found.label else []
    parts += [] if math.isnan(found.age) else [f"{found.age:.1f} years"]
    return printable(f"{found.image}: {', '.join(parts)}") if parts else ""


def print_json(rows: Sequence[dict[str, Any]]) -> None:
    print(json.dumps(rows, indent=1))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with whole_text(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    numbers = ("confidence_percent", "probability", "logit", "age")
    columns = {
        name: pa.array([row.get(name) for row in rows], pa.float64())
        if name in numbers
        else pa.array([as_utf8(row.get(name)) for row in rows], pa.string())
        for name in COLUMNS
    }
    with whole_file(path) as file:
        parquet.write_table(pa.table(columns), file)


def as_utf8(text: str | None) -> str | None:
    """A text with escapes for what no UTF-8 can have, as a file's name may; as the CSV has it."""
    return text and text.encode(errors="backslashreplace").decode()


class Pictures:
    """A directory of images with their heat maps over them, each in the colours of its own scale."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.names: set[str] = set()

    def write(self, found: Prediction, number: int) -> Path:
        """Writes the picture of an image, whose number makes its name another one where two have the same."""
        assert found.heat_map is not None
        assert found.face is not None
        name = key_of(Path(found.image).name)
        if name in self.names:
            name = with_row(name, number)
        self.names.add(name)
        path = self.directory / f"{name}.jpg"
        write_overlay(path, found.face, found.heat_map, float(np.abs(found.heat_map).max()) or 1.0)
        return path
