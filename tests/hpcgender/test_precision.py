"""In which precision a trained network computes: that of its run's validation, unless another is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch

from hpcgender.inference.config import WantedPrecision
from hpcgender.precision import Format, Precision, for_inference
from shard_tools.base.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts PyTorch's switches back."""
    for name in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


def rounds_to_tf32() -> tuple[bool, bool]:
    """Whether convolutions and whether matrix products may round to TF32, as PyTorch itself reads its switches."""
    products = torch.get_float32_matmul_precision()  # fails where a backend's own switch was set, as compiling does
    assert torch.backends.cuda.matmul.allow_tf32 == (products == "high")
    return torch.backends.cudnn.allow_tf32, products == "high"


def chosen(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, wish: WantedPrecision = "run", **run: Any
) -> str:
    """The precision on a GPU of that compute capability, or on a CPU, for a run of these options."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *arguments, **options: None)
    return for_inference(wish, {"precision": "auto", "tf32": True, **run}, GPU if capability else CPU).name


def test_it_is_that_of_the_runs_validation_on_such_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = (9, 0), (7, 0)
    assert [chosen(monkeypatch, device) for device in (new, old, None)] == ["bf16", "fp16", "fp32"]
    for trained_in, here in (("fp32", "tf32"), ("bf16", "bf16"), ("fp16", "fp16")):
        assert chosen(monkeypatch, new, precision=trained_in) == here
        assert rounds_to_tf32() == (True, True)  # as in that validation
    assert chosen(monkeypatch, new, precision="fp32", tf32=False) == "fp32"
    assert rounds_to_tf32() == (False, False)
    assert chosen(monkeypatch, old, precision="fp32") == "fp32"  # has no TF32
    assert chosen(monkeypatch, None, precision="bf16") == "bf16"
    assert chosen(monkeypatch, None, precision="fp16") == "fp32"  # a CPU has no fp16


def test_it_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for wish in get_args(Format):
        assert chosen(monkeypatch, (9, 0), wish) == wish
        assert rounds_to_tf32() == (wish != "fp32", wish != "fp32")
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    with pytest.raises(UserError, match=r"^--precision tf32 is for GPUs from Ampere on: give fp32$"):
        chosen(monkeypatch, (7, 0), "tf32")


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_a_cpu_has_not_all_of_them(name: Format) -> None:
    with pytest.raises(UserError, match=rf"^--precision {name} is for GPUs"):
        Precision(name, CPU)
