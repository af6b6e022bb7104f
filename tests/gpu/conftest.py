"""Tests of what only a GPU can show: `bash tests/run.sh -m gpu`. They are skipped, with the reason, where none is.

HPCGENDER_TEST_DEVICE=cpu runs on the CPU what can run there, to see that the tests themselves are sound.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic steps: cuBLAS reads it once

import pytest
import torch

from hpcgender.data.config import Backend, has_dali
from shard_tools.base.contracts import DEVICE

ON_CPU = os.environ.get("HPCGENDER_TEST_DEVICE") == "cpu"
if ON_CPU:
    os.environ[DEVICE] = "cpu"  # for commands, and whatever chooses its device itself


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU, or the CPU where that is asked for."""
    if ON_CPU:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The first GPU, for what has no meaning on a CPU."""
    if device.type != "cuda":
        pytest.skip("about GPUs alone")
    return device


@pytest.fixture(scope="session")
def two_devices(device: torch.device) -> torch.device:
    """The first of two GPUs, or the CPU where that is asked for."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    return device


@pytest.fixture(params=["dali", "torchvision"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each decoder that is installed."""
    if request.param == "dali" and not has_dali():
        pytest.skip("NVIDIA DALI is not installed")
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def dali() -> None:
    """NVIDIA DALI, where it is installed."""
    if not has_dali():
        pytest.skip("NVIDIA DALI is not installed")


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    """Puts PyTorch's global switches back."""
    cudnn = torch.backends.cudnn
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
    precision, exact = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(exact)
