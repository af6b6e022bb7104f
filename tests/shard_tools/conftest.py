"""Pictures, records and tars that several files of tests pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shard_tools.labelled_records import PEOPLE
from tests.shard_tools.others_tars import face, write
from tests.shard_tools.pictures import picture, save
from tests.shard_tools.record_file import insightface, write_records


@pytest.fixture
def utkface(tmp_path: Path) -> Path:
    """40 images in UTKFace's convention: 20 men and 20 women, each of a moment of its own."""
    for seed in range(40):
        name = f"{20 + seed}_{seed % 2}_{seed % 5}_20170109{seed:09d}.jpg.chip.jpg"
        save(tmp_path / "utk" / name, picture(seed), quality=90)
    return tmp_path / "utk"


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """A small file in InsightFace's layout."""
    write_records(tmp_path / "train.rec", insightface(PEOPLE))
    return tmp_path / "train.rec"


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a-000.tar, a-001.tar and a-002.tar of 12, 12 and 6 samples."""
    directory = tmp_path_factory.mktemp("tars")
    for number, last in enumerate((12, 24, 30)):
        write(directory / f"a-{number:03d}.tar", [face(n) for n in range(12 * number, last)])
    return directory
