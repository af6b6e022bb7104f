from __future__ import annotations

import os
import random
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.checkpoint import load_trained, read_checkpoint, restoring, save_checkpoint
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from shard_tools.base.errors import UserError
from tests.hostile.checkpoints import BAD_STREAMS, rewritten, saved, sealed

CPU = torch.device("cpu")
RESNET = ModelConfig(model="resnet18")


def content(classes: tuple[str, ...] = ("female", "male")) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "model": create(RESNET, 2).state_dict(),
        "classes": list(classes),
        "epoch": 3,
        "step": 30,
        "config": {**asdict(RESNET), "image_size": 32},
        **{"revision": "", "manifest": "", "val_manifest": "", "leaks": [], "crop": None},
    }


@contextmanager
def files_no_longer_than(length: int) -> Iterator[None]:
    """As on a disk that gets full: what is written past that many bytes fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "a.pt", content())
    return tmp_path / "a.pt"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One of 10 kB, to damage at random places."""
    save_checkpoint(tmp_path / "small.pt", {"model": {"w": torch.randn(40, 50)}, "best": 0.5})
    return tmp_path / "small.pt"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": None}, r"model must be a table, not null"),
        ({"model": {}}, r"does not fit resnet18"),
        ({"model": {"conv1.weight": "x"}}, r"does not fit resnet18"),
        ({"classes": 7}, r"classes must be a list in \[ \], each text in quotes, not 7"),
        ({"classes": ["male", "female"]}, r"was trained for classes male, female, not female, male"),
        ({"epoch": "3"}, r"epoch must be a whole number, not '3'"),
        ({"leaks": None}, r"leaks must be a list in"),
        ({"config": {"image_size": 32}}, r"has no model"),
        ({"config": {**asdict(RESNET), "model": "no such", "image_size": 32}}, r"unknown model"),
        ({"config": asdict(RESNET)}, r"has no image_size"),
        ({"config": {**asdict(RESNET), "image_size": 10**6}}, r"4096 pixels are the most"),
        ({"config": {**asdict(RESNET), "image_size": -1}}, r"takes images of 32 pixels or more"),
        ({"crop": {"a": 1}}, r"crop|a is unknown"),
    ],
)
def test_what_holds_another_thing_than_a_checkpoint_is_one_line(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pt", {**content(), **change})
    with pytest.raises(UserError, match=why) as error:
        load_trained(tmp_path / "a.pt", CPU)
    assert "\n" not in str(error.value)


def test_a_sealed_list_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(sealed(saved([1, 2])))
    with pytest.raises(UserError, match="it holds no checkpoint; use another checkpoint of the run"):
        load_trained(tmp_path / "a.pt", CPU)


@pytest.mark.parametrize("stream", BAD_STREAMS)
def test_a_sealed_pickle_that_cannot_be_followed_is_one_line(stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(sealed(rewritten(saved({"a": torch.zeros(3)}), stream)))
    with pytest.raises(UserError, match=r"a\.pt cannot be read: .*; use another checkpoint of the run"):
        read_checkpoint(tmp_path / "a.pt")


def test_records_that_grow_are_refused_before_they_are_read(tmp_path: Path) -> None:
    whole = saved({"model": {"w": torch.zeros(1 << 20)}})
    (tmp_path / "a.pt").write_bytes(sealed(whole))
    assert read_checkpoint(tmp_path / "a.pt")["model"]["w"].shape == (1 << 20,)
    (tmp_path / "a.pt").write_bytes(sealed(rewritten(whole, compression=zipfile.ZIP_DEFLATED)))
    with pytest.raises(UserError, match=r"a\.pt cannot be read: its records are larger than the file; use another"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("width", "why"), [(40_000, "its weights take 6,527.3 MB, more than the file"), (1 << 40, ""), (1 << 70, "")]
)
def test_a_network_that_is_larger_than_the_file_is_not_made(
    width: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(model="resnet18", head_layers=(width, width))
    save_checkpoint(tmp_path / "a.pt", {**content(), "config": {**asdict(config), "image_size": 32}})
    monkeypatch.setattr("hpcgender.checkpoint.create", None)
    with pytest.raises(UserError, match=rf"a\.pt does not fit resnet18: {why}"):
        load_trained(tmp_path / "a.pt", CPU)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Error(s) in loading state_dict for ResNet: an exception occurred : ('CUDA error: unspecified')."),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp"),
    ],
)
def test_a_machine_that_fails_is_not_blamed_on_the_checkpoint(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, restoring(tmp_path / "a.pt"):
        raise error
    assert raised.value is error


def test_another_state_is_said_to_be_one(tmp_path: Path) -> None:
    message = r"a\.pt holds another state than the run has \(Error\(s\) in loading"
    with pytest.raises(UserError, match=message), restoring(tmp_path / "a.pt"):
        create(RESNET, 2).load_state_dict({})


def test_a_model_comes_back_as_it_was(checkpoint: Path) -> None:
    trained = load_trained(checkpoint, CPU)
    assert (trained.name, trained.image_size, trained.epoch, trained.classes) == ("resnet18", 32, 3, ("female", "male"))
    expected = content()["model"]
    assert all(torch.equal(value, expected[key]) for key, value in trained.model.state_dict().items())
    assert not trained.model.training


def test_any_torch_load_reads_it(checkpoint: Path) -> None:
    for mmap in (False, True):
        weights = torch.load(checkpoint, weights_only=True, mmap=mmap)["model"]
        assert torch.equal(weights["conv1.weight"], content()["model"]["conv1.weight"])


def test_other_classes_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", content(("male", "female")))
    with pytest.raises(UserError, match="trained for classes male, female, not female, male"):
        load_trained(tmp_path / "a.pt", CPU)


def test_one_cut_short_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    for length in (0, 1, *random.Random(0).sample(range(len(whole)), 200), len(whole) - 1):
        small.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"small\.pt is cut short, or not a checkpoint of hpcgender; use another"):
            read_checkpoint(small)


def test_one_with_a_flipped_bit_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    generator = random.Random(0)
    # Everywhere, and every bit of the checksum, of its line, and of what the zip file ends with.
    places = [generator.randrange(8 * len(whole)) for _ in range(500)]
    for place in (*places, *range(8 * (len(whole) - 150), 8 * len(whole))):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        small.write_bytes(damaged)
        with pytest.raises(UserError, match=r"small\.pt is (damaged|cut short)"):
            read_checkpoint(small)


@pytest.mark.parametrize("other", [{"state_dict": {}}, [1, 2]])
def test_another_programs_checkpoint_is_refused(tmp_path: Path, other: object) -> None:
    torch.save(other, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a checkpoint of hpcgender"):
        read_checkpoint(tmp_path / "a.pt")


def test_code_in_one_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    save_checkpoint(tmp_path / "a.pt", {"model": Code()})
    with pytest.raises(UserError, match=r"a\.pt cannot be read: "):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()


def test_a_failed_write_leaves_the_old_one(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    for length in (0, 1_000, len(before) // 2, len(before) - 1):
        with (
            files_no_longer_than(length),
            pytest.raises(UserError, match=r"cannot write .*a\.pt: File too large; free"),
        ):
            save_checkpoint(checkpoint, content())
        assert checkpoint.read_bytes() == before
        assert [path.name for path in checkpoint.parent.iterdir()] == ["a.pt"]
