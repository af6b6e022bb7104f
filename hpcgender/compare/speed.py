"""How long a forward pass takes on this machine, of several models in turn."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from shard_tools.base.text import plural
from shard_tools.manifest import CLASSES

ROUND_SECONDS = 0.2
"""Least time of a round; a model is called at least three times."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The medians over the rounds, in float32; milliseconds."""

    one_ms: float
    """One image alone."""
    batch_ms: float
    """A batch of `batch` images."""
    batch: int
    peak_memory_mb: float | None
    """GPU memory of the batch, weights included; None on a CPU."""

    @property
    def images_per_s(self) -> float:
        """Of the batch."""
        return self.batch / self.batch_ms * 1000


def device_name(device: torch.device) -> str:
    """The device, with the number of threads on a CPU, and PyTorch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{processor()}, {plural(threads, 'thread')}, PyTorch {torch.__version__}"


def processor() -> str:
    """The name of the CPU, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@torch.inference_mode()
def measure_speeds(
    models: Sequence[tuple[ModelConfig, int]], batch: int, rounds: int, device: torch.device
) -> list[Speed]:
    """The speed of each model, given with the size of its images in pixels, on `device`.

    Weights do not change it, so they are random. The models take turns within a round, so that other load on the
    machine slows all of them.
    """
    networks = [
        create(config, len(CLASSES), size).eval().to(device).to(memory_format=torch.channels_last)
        for config, size in models
    ]
    inputs = [
        [torch.randn(count, 3, size, size, device=device).to(memory_format=torch.channels_last) for count in (1, batch)]
        for _, size in models
    ]
    wait: Callable[[], None] = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    peaks: list[float | None] = []
    for network, (one, many) in zip(networks, inputs, strict=True):
        network(one)
        peaks.append(peak_memory(network, many, device))
    times: list[list[list[float]]] = [[[], []] for _ in models]
    for _ in range(rounds):
        for network, sizes, of_model in zip(networks, inputs, times, strict=True):
            for images, of_size in zip(sizes, of_model, strict=True):
                of_size.append(seconds_a_call(network, images, wait))
    return [
        Speed(
            one_ms=statistics.median(one) * 1000,
            batch_ms=statistics.median(many) * 1000,
            batch=batch,
            peak_memory_mb=peak,
        )
        for (one, many), peak in zip(times, peaks, strict=True)
    ]


def peak_memory(network: torch.nn.Module, images: torch.Tensor, device: torch.device) -> float | None:
    """Peak GPU memory of a forward pass with its images and weights, MB; None on a CPU."""
    if device.type != "cuda":
        network(images)
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(images)
    weights = sum(value.nbytes for value in (*network.parameters(), *network.buffers()))
    return (torch.cuda.max_memory_allocated(device) - before + images.nbytes + weights) / 1e6


def seconds_a_call(network: torch.nn.Module, images: torch.Tensor, wait: Callable[[], None]) -> float:
    """Mean seconds per call of a round."""
    wait()
    calls, began = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - began < ROUND_SECONDS:
        network(images)
        wait()
        calls += 1
    return (time.perf_counter() - began) / calls
