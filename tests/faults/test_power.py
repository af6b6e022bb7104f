"""A power cut loses nothing of what was written whole, nor a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hpcgender.train.saver import Saver, latest
from shard_tools.base import files
from tests.faults.power import journalled, taken_back


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where renames are noted from now on."""
    for name in ("rename", "replace", "fsync"):
        monkeypatch.setattr(os, name, getattr(os, name))
    monkeypatch.setattr(files, "SYNCFS", files.SYNCFS)
    journalled(tmp_path / "journal")
    return tmp_path / "journal"


def test_a_rename_that_nothing_has_made_sure_is_taken_back(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    files.write_whole(tmp_path / "a", b"new", synced=False)
    assert taken_back(journal) == 1
    assert (tmp_path / "a").read_text() == "old"


def test_what_was_written_whole_stays(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    files.write_whole(tmp_path / "a", b"new")
    with files.whole_text(tmp_path / "b") as text:
        text.write("text")
    with files.new_directory(tmp_path / "c") as partial:
        (partial / "d").write_text("d")
    files.write_whole(tmp_path / "e", b"one of many", synced=False)
    files.sync_files(tmp_path)
    assert taken_back(journal) == 0
    assert [(tmp_path / name).read_text() for name in ("a", "b", "c/d", "e")] == ["new", "text", "d", "one of many"]


def test_no_checkpoint_is_lost(journal: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    with Saver(directory, keep=1) as saver:
        for step in (1, 2, 3):
            saver.save(step, {"weight": torch.zeros(2)}, {"step": step}, best=True)
    assert taken_back(journal) == 0
    found = latest(directory)
    assert found
    assert (found[1]["step"], (directory / "last.pt").resolve().name) == (3, "step-00000003.pt")
    assert (directory / "best.pt").exists()
