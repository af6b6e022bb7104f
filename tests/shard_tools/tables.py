"""Drawn images and tables of them, and what is packed of those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shard_tools.base.commands import parse_options
from shard_tools.manifest import read_manifest
from shard_tools.sources.table import Table


def draw(images: Path, names: Sequence[str]) -> None:
    """A picture for each name that looks like no other's."""
    for number, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC).save(images / name, format="JPEG")


def command(text: str, **paths: Path) -> Table:
    """The source that a command line makes; {name} stands for a path."""
    source = parse_options(Table, "pack table", [word.format(**paths) for word in text.split()])
    assert isinstance(source, Table)
    return source


def labels(out: Path) -> dict[str, dict[str, Any]]:
    """What was packed, by key."""
    manifest = read_manifest(out)
    fields = ("gender", "age", "subject", "group")
    return {
        row["key"].decode(): {
            **{field: row[field].decode() if field in fields[2:] else row[field].item() for field in fields},
            "split": split,
        }
        for split in manifest.splits
        for row in manifest.index(split)
    }


def reasons(source: Table) -> dict[str, str]:
    return {record.name: record.rejected for record in source.records() if record.rejected}
