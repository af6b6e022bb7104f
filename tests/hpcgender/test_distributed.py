"""Which process this is and what it computes on: what a wrong environment is answered with."""

from __future__ import annotations

import os
import socket
import time
import warnings
from pathlib import Path

import pytest
import torch

from hpcgender.distributed import (
    TORCHRUN,
    check_interface,
    choose_interface,
    process_group,
    select_device,
    torchrun_ranks,
)
from shard_tools.base.errors import BAD_INPUT, UserError
from tests.conftest import REPOSITORY, Run


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "HPCGENDER_DEVICE"):
        monkeypatch.delenv(name, raising=False)


def of_two(monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    values = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", **others}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun_ranks() == (0, 1, 0, 1)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"^RANK set, but WORLD_SIZE, .* not set: .* or one with env -u RANK$"):
        torchrun_ranks()
    of_two(monkeypatch)
    with pytest.raises(UserError, match="WORLD_SIZE is 2, but MASTER_ADDR, MASTER_PORT not set"):
        torchrun_ranks()
    of_two(monkeypatch, MASTER_ADDR="localhost", MASTER_PORT="29500", RANK="1")
    assert torchrun_ranks() == (1, 2, 0, 2)
    of_two(monkeypatch, LOCAL_RANK="one")
    with pytest.raises(UserError, match=r"^LOCAL_RANK=one is no number"):
        torchrun_ranks()


def test_a_network_interface_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    of_two(monkeypatch, MASTER_ADDR="localhost", MASTER_PORT="29500", HPCGENDER_DEVICE="cpu")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo,ib77")
    with (
        pytest.raises(UserError, match=r"GLOO_SOCKET_IFNAME names ib77, which .* has not: give one of .*lo"),
        process_group(),
    ):
        pass
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    check_interface()


@pytest.mark.parametrize(("address", "chosen"), [("127.0.1.1", "ib0"), ("10.0.0.5", None)])
def test_where_a_hosts_name_is_the_loopback_gloo_is_told_an_interface(
    address: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Debian, where ranks on other hosts could not connect."""
    monkeypatch.setattr(socket, "gethostbyname", lambda name: address)
    monkeypatch.setattr("hpcgender.distributed.interfaces", lambda: {"lo": "127.0.0.1", "ib0": "198.51.100.7"})
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == (chosen or "")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth9")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth9"


def no_gpu() -> bool:
    return False


@pytest.mark.parametrize("granted", ["0,1", "GPU-2f1c", "MIG-9"])
def test_granted_gpus_that_cannot_be_used_are_an_error(monkeypatch: pytest.MonkeyPatch, granted: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", no_gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
    message = rf"^CUDA_VISIBLE_DEVICES is {granted}, but torch cannot use a GPU on \S+: .+; correct that, or set "
    with pytest.raises(UserError, match=message + "HPCGENDER_DEVICE=cpu to compute on the CPU$"):
        select_device()
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    assert select_device() == torch.device("cpu")
    monkeypatch.setenv("HPCGENDER_DEVICE", "gpu")
    with pytest.raises(UserError, match="HPCGENDER_DEVICE=gpu: set it to cpu or cuda, or to nothing"):
        select_device()


def test_where_the_launcher_expects_a_gpu_the_cpu_does_not_take_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a rank on the CPU and ranks on GPUs would wait for each other."""
    monkeypatch.setattr(torch.cuda, "is_available", no_gpu)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HPCGENDER_DEVICE", "cuda")
    with pytest.raises(UserError, match=r"^HPCGENDER_DEVICE is cuda, but torch cannot use a GPU on \S+: .+; correct"):
        select_device()


@pytest.mark.parametrize("mask", ["", "-1", "NoDevFiles"])
def test_where_none_were_granted_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", no_gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert select_device() == torch.device("cpu")


def test_torchs_warning_about_a_driver_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found version 11040). Please update", stacklevel=1)
        return False

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    with pytest.raises(UserError, match=r"^torch cannot use .*: The NVIDIA driver .* \(found version 11040\); correct"):
        select_device()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="process 3 of this node has no GPU, as torch sees 2: start 2"):
        select_device(2)


@pytest.mark.parametrize("how", [(), ("deaf",)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_failing_rank_ends_the_others_with_its_line(
    device: str, how: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    """Within 30 seconds. It took the ten minutes for which ranks wait, twice what `run` allows, and lost the line."""
    ranks = min(3, torch.cuda.device_count()) if device == "cuda" else 3
    if ranks < 2:
        pytest.skip("needs two GPUs")
    program = ("tests.hpcgender.failing_rank", device, tmp_path, *how)
    options = (f"--nproc-per-node={ranks}", f"--rank-log={tmp_path}/rank-{{rank}}.log")
    environment = {"PYTHONPATH": str(REPOSITORY), **({"HPCGENDER_DEVICE": "cpu"} if device == "cpu" else {})}
    done = run("jobs.agent", *options, "-m", *program, **environment)
    assert done.returncode == BAD_INPUT, done.stderr
    assert time.time() - float((tmp_path / "failed").read_text()) < 30
    assert "hpcgender: the labels of rank 1 are wrong: correct them" in done.stderr.splitlines()
    assert "TERM was heard" not in done.stdout
