from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.checkpoint import load_trained, read_checkpoint, save_checkpoint
from hpcgender.models.registry import create
from shard_tools.commands import UserError

CPU = torch.device("cpu")


def content(classes: tuple[str, ...] = ("female", "male")) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "model": create("resnet18", 2).state_dict(),
        "classes": list(classes),
        "epoch": 3,
        "config": {"model": "resnet18", "output_stride": 32, "image_size": 32},
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "a.pt", content())
    return tmp_path / "a.pt"


def test_a_model_comes_back_as_it_was(checkpoint: Path) -> None:
    trained = load_trained(checkpoint, CPU)
    assert (trained.name, trained.image_size, trained.epoch, trained.classes) == ("resnet18", 32, 3, ("female", "male"))
    expected = content()["model"]
    assert all(torch.equal(value, expected[key]) for key, value in trained.model.state_dict().items())
    assert not trained.model.training


def test_other_classes_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", content(("male", "female")))
    with pytest.raises(UserError, match="trained for classes male, female, not female, male"):
        load_trained(tmp_path / "a.pt", CPU)


def test_a_truncated_checkpoint_is_refused(checkpoint: Path) -> None:
    size = checkpoint.stat().st_size
    for length in (0, 1, *random.Random(0).sample(range(size), 8), size - 1):
        os.truncate(checkpoint, length)
        with pytest.raises(UserError, match=r"cannot read .*a\.pt"):
            read_checkpoint(checkpoint)
        save_checkpoint(checkpoint, content())


@pytest.mark.parametrize("other", [{"state_dict": {}}, [1, 2]])
def test_another_programs_checkpoint_is_refused(tmp_path: Path, other: object) -> None:
    torch.save(other, tmp_path / "a.pt")
    with pytest.raises(UserError, match="no checkpoint of hpcgender"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_failed_write_leaves_the_old_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(checkpoint, content())
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["a.pt"]
