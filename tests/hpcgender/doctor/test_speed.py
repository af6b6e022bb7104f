"""Checks of `hpcgender doctor`, and the failures of each: what starves, and shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.distributed import Ranks
from hpcgender.doctor import speed, together
from hpcgender.doctor.finding import Finding, examined

CPU = torch.device("cpu")
SPEEDS = speed.Speeds(
    read_images_per_s=1000.0,
    read_bytes_per_s=1e7,
    decoded_images_per_s=900.0,
    loaded_images_per_s=800.0,
    step_images_per_s=100.0,
    step_s=0.16,
    gradient_bytes=10**8,
    peak_memory_bytes=0,
)


def test_what_starves_is_told() -> None:
    fast, slow = SPEEDS, speed.Speeds(**{**SPEEDS.__dict__, "loaded_images_per_s": 110.0, "read_images_per_s": 110.0})
    assert {speed.judge_decoding(fast, on_gpu).state for on_gpu in (True, False)} == {"green"}
    decoding = speed.Speeds(**{**SPEEDS.__dict__, "decoded_images_per_s": 110.0})
    for on_gpu, advice in ((True, "--backend dali-mixed"), (False, "more cores")):
        found = speed.judge_decoding(decoding, on_gpu)
        assert (found.state, found.found) == ("yellow", "110 images/s in each process, and steps take 100")
        assert advice in found.advice
        assert found.numbers == {"images_per_s": 110.0}
    assert {speed.judge_reading(fast).state, speed.judge_loading(fast, on_gpu=True).state} == {"green"}
    assert speed.judge_reading(slow).state == "yellow"
    assert "starves" in speed.judge_loading(slow, on_gpu=True).found
    assert speed.judge_loading(slow, on_gpu=False).state == "yellow"
    assert speed.judge_step(fast, 95.0, "node2", "bf16").state == "green"
    crawling = speed.Speeds(**{**SPEEDS.__dict__, "step_images_per_s": 0.123, "read_bytes_per_s": 4e4})
    assert speed.judge_step(crawling, 0.12, "node2", "fp32").found.startswith("0.12 images/s in each process")
    assert speed.judge_reading(crawling).found == "0.04 MB/s, 1,000 images/s in each process"
    assert "60 on node2" in speed.judge_step(fast, 60.0, "node2", "bf16").found


def test_the_slowest_rank_is_judged() -> None:
    """As all wait for it; steps are compared with those of a usual one."""
    slow = speed.Speeds(**{**SPEEDS.__dict__, "decoded_images_per_s": 110.0})
    findings, own = together.judge_speeds([("node1", SPEEDS), ("node2", slow)], Ranks(0, 2, CPU))
    assert {finding.check: finding.state for finding in findings} == {
        "shards": "green",
        "decode": "yellow",
        "step": "green",
        "loader": "green",
    }
    assert own is not None
    assert own.decoded_images_per_s == 110


def test_shards_that_cannot_be_read_are_told(shards: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shards, tmp_path / "data")
    next(data.glob("train/*.tar")).unlink()
    config = TrainConfig(data=data, model="resnet18", image_size=32, batch_size=8, backend="torchvision")
    found = examined("step", speed.measure, config, Ranks(0, 1, CPU))
    assert isinstance(found, Finding)
    assert found.state == "red"
    assert "restore or pack it again" in found.found
