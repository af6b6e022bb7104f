"""Models to evaluate, and data to evaluate them on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.hpcgender.evaluate.evaluating import save_skilled_model
from tests.hpcgender.evaluate.examples import save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt")


@pytest.fixture(scope="module")
def skilled(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    return save_skilled_model(tmp_path_factory.mktemp("skilled") / "checkpoints" / "best.pt", shards)


@pytest.fixture(scope="module")
def partly_labelled(tmp_path_factory: pytest.TempPathFactory, faces: Path, run: Run) -> Path:
    """Drawn faces of which some have no gender, some no age, in test; men alone in train; no label at all in val."""
    root = tmp_path_factory.mktemp("partly")
    table = root / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "sex", "years", "who", "race", "part"))
        for number, path in enumerate(sorted(faces.glob("*.JPG"))[:90]):
            part = ("train", "val", "test")[number // 30]
            sex = {"train": "male", "val": "", "test": ("male", "female", "")[number % 3]}[part]
            years = "" if part == "val" or number % 5 == 0 else 20 + number % 30
            writer.writerow((path.name, sex, years, f"s{number // 2}", ("", "one", "two")[number % 3], part))
    columns = ("--image", "file", "--gender", "sex", "--age", "years", "--subject", "who", "--group", "race")
    packed = run(
        *("shard_tools", "pack", "table", "--table", table, "--images", faces, "--out", root / "packed"),
        *(*columns, "--split", "part", "--no-near-duplicates"),
    )
    assert packed.returncode == 0, packed.stderr
    return root / "packed"
