"""Tars as others write them with the library webdataset, and what is packed of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import webdataset

from shard_tools.manifest import read_manifest
from shard_tools.sources.webdataset import Webdataset
from tests.shard_tools.pictures import picture

STATED = {"male": ("1",), "female": ("0",), "unknown_value": ("-1",)}
Samples = Sequence[dict[str, Any]]


def jpeg(seed: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, form)
    return buffer.getvalue()


def face(number: int) -> dict[str, Any]:
    """A sample as others write it: every third of unknown gender, as if of 5 people of 3 groups."""
    return {
        "__key__": f"{number:05d}",
        "jpg": jpeg(number),
        "cls": number % 3 - 1,
        "json": {
            "gender": number % 3 - 1,
            "age": 20 + number,
            "face": {"sex": ("", "woman", "man")[number % 3], "race": f"group {number % 2}"},
            "person": f"p{number % 5}",
        },
    }


def write(path: Path, samples: Samples, **options: Any) -> Path:
    with webdataset.TarWriter(str(path), **options) as tar:
        for sample in samples:
            tar.write(sample)
    return path


def source(out: Path, *urls: object, label: str = "json:gender", **options: Any) -> Webdataset:
    options = {"val": 0.0, "test": 0.0, "workers": 1, **STATED, **options}
    return Webdataset(urls=tuple(map(str, urls)), label=label, out=out, **options)


def packed(out: Path) -> dict[str, tuple[Any, ...]]:
    """Hash of the image, gender, age, subject and group of every sample that was packed, by key."""
    manifest = read_manifest(out)
    return {
        row["key"].decode(): (
            int(row["content"]),
            int(row["gender"]),
            float(row["age"]),
            row["subject"].decode(),
            row["group"].decode(),
        )
        for split in manifest.splits
        for row in manifest.index(split)
    }


def left_out(out: Path) -> dict[str, str]:
    """The reason for every row of the quarantine, by what follows the last directory of its name."""
    if not (out / "quarantine").exists():
        return {}
    with (out / "quarantine" / "quarantine.csv").open(newline="") as file:
        return {row["source"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}
