"""Pictures for the tests of packing, and what is found in a directory or a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shard_tools.manifest import read_manifest


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(out: Path, split: str = "train") -> Any:
    return read_manifest(out).index(split)
