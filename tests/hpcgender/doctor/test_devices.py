"""Checks of `hpcgender doctor`, and the failures of each: GPUs; where they are needed, by fakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hpcgender.distributed import Ranks
from hpcgender.doctor import devices
from hpcgender.doctor.finding import green

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)


def test_gpus_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = devices.here("dali", ALONE)
    assert [finding.state for finding in found] == ["red"]
    assert "CUDA_VISIBLE_DEVICES is 0,1, but torch cannot use a GPU" in found[0].found
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    assert devices.gpus(os.environ).state == "yellow"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpus(os.environ).state == "green"


def test_fewer_gpus_than_granted_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes of a GPU."""
    monkeypatch.setattr(devices, "select_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = devices.gpus({"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (found.state, found.found) == ("red", "2 granted (0, 1), 1 seen by torch")


def test_each_rank_tries_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be for one process alone; of three GPUs for two ranks the first one tries two."""
    monkeypatch.setattr(devices, "gpus", lambda environ: green("GPUs", ""))
    monkeypatch.setattr(devices, "devices", lambda environ: [torch.device("cuda", number) for number in range(3)])
    for check in ("kernel", "memory"):
        monkeypatch.setattr(devices, check, lambda device, check=check: green(f"{check} {device.index}", ""))
    checks = [[found.check for found in devices.here("dali", Ranks(n, 2, CPU, n, 2))] for n in range(2)]
    assert checks == [["GPUs", "kernel 0", "memory 0", "kernel 2", "memory 2"], ["kernel 1", "memory 1"]]


def test_gpus_that_were_forgotten_or_lost_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "select_device", lambda: CPU)
    (tmp_path / "version").touch()
    for environ in ({"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "", "HPCGENDER_DEVICE": "cpu"}):
        assert devices.gpus(environ, tmp_path / "none").state == "green"
        found = devices.gpus(environ, tmp_path / "version")
        assert (found.state, "no GPU was granted" in found.found) == ("yellow", True)
        assert "--gres=gpu:N" in found.advice
    monkeypatch.setattr(devices, "select_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "A100")
    of_sge = {"JOBS_GPU_VARIABLE": "SGE_HGR_gpu", "SGE_HGR_gpu": "0 1"}
    for promised, says in (
        ({"SLURM_GPUS_ON_NODE": "2"}, "2 granted (SLURM_GPUS_ON_NODE)"),
        (of_sge, "2 granted (SGE_HGR_gpu)"),
    ):
        found = devices.gpus({"CUDA_VISIBLE_DEVICES": "0", **promised})
        assert (found.state, found.found) == ("yellow", f"{says}, 1 seen by torch")
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"}).state == "green"


def test_a_device_that_computes_nothing_is_told() -> None:
    assert devices.kernel(CPU).state == "green"
    assert devices.kernel(torch.device("meta")).state == "red"


def test_a_device_that_computes_something_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that changes on its way there: memory that is broken tells nothing by itself."""

    def damaged(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        there = values.clone()
        there[3, 5] += 1
        return there

    monkeypatch.setattr(torch.Tensor, "to", damaged)
    found = devices.kernel(CPU)
    assert (found.check, found.state, found.found) == ("kernel on cpu", "red", "a matrix product is wrong")
    assert "tell the administrators" in found.advice


def test_a_container_without_the_gpus_own_decoders_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.video("libnvcuvid-that-is-not-here.so.1").state == "yellow"
    assert devices.video("libc.so.6").state == "green"
    for backend in ("dali", "dali-mixed"):  # nor is anything said of one without a GPU
        assert [finding.check for finding in devices.here(backend, ALONE)] == ["GPUs", "kernel on cpu"]
    monkeypatch.setattr(devices, "devices", lambda environ: [torch.device("cuda")])
    for check in ("kernel", "memory"):
        monkeypatch.setattr(devices, check, lambda device, check=check: green(check, ""))
    assert [finding.check for finding in devices.here("dali-mixed", ALONE)] == [
        "GPUs",
        "hardware decoder",
        "kernel",
        "memory",
    ]


def test_a_gpu_that_others_use_is_told() -> None:
    assert devices.judge_memory("cuda:0", free=int(79e9), total=int(80e9)).state == "green"
    assert devices.judge_memory("cuda:0", free=int(20e9), total=int(80e9)).state == "yellow"
