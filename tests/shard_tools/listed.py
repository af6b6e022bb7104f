"""Images whose labels stand in a list beside them, for tests of `shard-tools inspect`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shard_tools.sources import ImageDirectory, Record


@dataclass(kw_only=True)
class Listed(ImageDirectory):
    """Images whose labels stand in labels.json beside them: a list of the fields of records."""

    @property
    def convention(self) -> str:
        return "as listed"

    def records(self) -> Iterator[Record]:
        for row, fields in enumerate(json.loads((self.images / "labels.json").read_text())):
            yield Record(row=row, **fields)


def save(path: Path, seed: int, size: tuple[int, int] = (40, 30), **options: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path, **options)
