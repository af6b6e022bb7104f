"""A directory of pictures that several files of tests pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shard_tools.pictures import picture, save


@pytest.fixture
def utkface(tmp_path: Path) -> Path:
    """40 images in UTKFace's convention: 20 men and 20 women, each of a moment of its own."""
    for seed in range(40):
        name = f"{20 + seed}_{seed % 2}_{seed % 5}_20170109{seed:09d}.jpg.chip.jpg"
        save(tmp_path / "utk" / name, picture(seed), quality=90)
    return tmp_path / "utk"
