"""How fast training is: a step beside timm's, a whole run beside bare steps, two processes beside two threads.

    python -m tests.benchmarks.train [--quick] [--model NAME] [--image-size N] [--batch-size N]

Uses a GPU if there is one. All steps are alike: forward pass, cross-entropy, backward pass and Nesterov SGD, on a batch
in memory. Runs are started as a user starts them, on drawn faces; their speed is that of the second epoch in
metrics.jsonl, as the first includes warm-up. Also printed: the time of each part of a step, and its speed as a fraction
of a matrix product's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
import tyro

from hpcgender.commands.train import TrainConfig
from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.models.table import cost
from hpcgender.precision import Precision
from hpcgender.train.learner import Learner, memory_format
from hpcgender.train.saver import Saver
from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic
from tests.benchmarks.ratios import measure_rates, print_ratio, print_speeds

STALL_EVERY_S = 600.0
"""Seconds between checkpoints, by which the time of a save is divided."""


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark:
    """How fast training is: a step beside timm's, a whole run beside bare steps, two processes beside two threads."""

    quick: bool = False
    """A small model, few steps and one round: a check that it runs, no measurement."""
    model: str = "se_resnet50"
    """A model that timm also has: resnet50, se_resnet50, ..."""
    image_size: int = 112
    """Height and width of the images, pixels."""
    batch_size: int = 16
    """Images in a batch."""


def main(benchmark: TrainBenchmark) -> None:
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    rounds, steps = (1, 2) if benchmark.quick else (3, 12 if device.type == "cpu" else 100)
    model, size, batch = benchmark.model, benchmark.image_size, benchmark.batch_size
    if benchmark.quick:
        model, size = "se_resnet18", 64
    config = TrainConfig(model=model, image_size=size, batch_size=batch, augment="light")
    learner = Learner(config, 2, Ranks(0, 1, device), fresh=True)
    images = torch.randn(batch, 3, size, size, device=device)
    gender = torch.arange(batch, device=device) % 2
    with tempfile.TemporaryDirectory(prefix="benchmark-train-") as name:
        root = Path(name)
        with redirect_stdout(StringIO()):
            pack(Synthetic(count=(steps + 2) * batch * 3, size=size, seed=0, out=root / "shards", val=0.1, test=0))
        contenders = {
            "timm's model, plain steps": timm_steps(config, device, images, gender, steps),
            "hpcgender, steps": own_steps(learner, images, gender, steps),
            "hpcgender, a run of one process": run_of(config, root, 1),
        }
        if device.type == "cpu":
            contenders["hpcgender, a run of two processes"] = run_of(config, root, 2)
        for work in list(contenders.values())[:2]:
            work()  # the first steps are slower
        speeds = measure_rates(contenders, rounds)
        records = [second_epoch(path.parent) for path in root.glob("runs/*/metrics.jsonl")]
        stalls = [stall(learner, root / "checkpoints") for _ in range(rounds)]
        split = step_split(learner, images, gender, steps)
        peak = matmul_speed(learner.precision)

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    precision = learner.precision.name
    title = f"{model}, {batch} images of {size}x{size} pixels in a batch, {precision}, {where}"
    print_speeds(title, "images/s", speeds)
    peer, own, one, *two = speeds.values()
    whole = sum(split.values())
    print(f"a step takes {1e3 * whole:.1f} ms: " + ", ".join(f"{name} {s / whole:.0%}" for name, s in split.items()))
    reached = 3 * 2 * cost(config, size).macs * statistics.median(own)  # a backward pass is two forward passes
    print(f"{reached / 1e12:.3f} TFLOP/s, {reached / peak:.0%} of a {precision} matrix product's {peak / 1e12:.3f}")
    print_ratio("step_over_timm", own, peer, "at least 1")
    print_ratio("run_over_steps", one, own, "at least 0.95")
    if two:
        print_ratio("two_processes_over_two_threads", two[0], one, "at least 0.9")
    print_ratio("checkpoint_stall", stalls, [STALL_EVERY_S] * len(stalls), "at most 0.01, one in ten minutes")
    print_ratio("data_wait", [record["data_wait"] for record in records], [1.0] * len(records), "at most 0.02")


def timed(step: Callable[[], Any], images: torch.Tensor, steps: int) -> float:
    """Images per second of `steps` calls of a step."""
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return steps * len(images) / (time.perf_counter() - begin)


def timm_steps(
    config: TrainConfig,
    device: torch.device,
    images: torch.Tensor,
    gender: torch.Tensor,
    steps: int,
    compiled: str = "",
) -> Callable[[], float]:
    """timm's model of the same name, and the steps of its train.py; `compiled`: in that mode of torch.compile."""
    model = timm.create_model(config.model.replace("_", ""), num_classes=2).to(device).train()
    layout = memory_format(config, device)
    model, laid_out = model.to(memory_format=layout), images.contiguous(memory_format=layout)
    if compiled:
        model.compile(mode=compiled)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4)
    precision = Precision("auto", device)

    def step() -> None:
        with precision.autocast():
            loss = F.cross_entropy(model(laid_out), gender)
        optimizer.zero_grad()
        precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        precision.scaler.step(optimizer)
        precision.scaler.update()

    return lambda: timed(step, images, steps)


def own_steps(learner: Learner, images: torch.Tensor, gender: torch.Tensor, steps: int) -> Callable[[], float]:
    """The steps of training, including their metrics."""
    learner.network.train()
    tally = Tally(images.device, learner.config.task_weights, binned=True)
    norms = GradientNorms(images.device)
    batch = Batch(images, gender, torch.full((len(images),), -1.0, device=images.device), gender.cpu().numpy())
    return lambda: timed(lambda: learner.step(batch, 0, 0, 1000, tally, norms), images, steps)


def run_of(config: TrainConfig, root: Path, processes: int) -> Callable[[], float]:
    """A run of two epochs, as a user starts it: one process with a thread per core, or several with one thread each."""
    number = 0

    def run() -> float:
        nonlocal number
        number += 1
        name = f"{processes}-{number}"
        launch = ["hpcgender.launch", "--nodes", str(processes), "--"] if processes > 1 else ["hpcgender"]
        options = {"model": config.model, "image-size": config.image_size, "batch-size": config.batch_size}
        flags = [str(part) for option, value in options.items() for part in (f"--{option}", value)]
        command = [sys.executable, "-m", *launch, "train", "--data", "shards", "--name", name, "--epochs", "2", *flags]
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        repository = str(Path(__file__).parent.parent.parent)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": repository}
        subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
        return float(second_epoch(root / "runs" / name)["images_per_s"])

    return run


def second_epoch(run: Path) -> dict[str, Any]:
    """A run's record of its second epoch."""
    record: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    return record


def step_split(learner: Learner, images: torch.Tensor, gender: torch.Tensor, steps: int) -> dict[str, float]:
    """Seconds of the parts of a step: the time of a step with each part minus the time of one without it."""
    laid_out = images.contiguous(memory_format=learner.memory_format)

    def forward() -> torch.Tensor:
        with learner.precision.autocast():
            logits = learner.network(laid_out).gender
            assert logits is not None
            return F.cross_entropy(logits, gender)

    def backward() -> None:
        forward().backward()  # type: ignore[no-untyped-call]
        learner.optimizer.zero_grad()

    first, both, whole = (
        len(images) / rate
        for rate in (
            timed(forward, images, steps),
            timed(backward, images, steps),
            own_steps(learner, images, gender, steps)(),
        )
    )
    return {"forward": first, "backward": both - first, "update, checks and counting": whole - both}


def matmul_speed(precision: Precision) -> float:
    """Floating-point operations per second of large matrix products in the precision of the forward pass."""
    on_gpu = precision.device.type == "cuda"
    side, times = (8192, 20) if on_gpu else (2048, 5)
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    factor = torch.randn(side, side, device=precision.device, dtype=formats[precision.name])
    torch.mm(factor, factor)
    return 2 * side**3 / side * timed(lambda: torch.mm(factor, factor), factor, times)


def stall(learner: Learner, directory: Path) -> float:
    """Seconds for which a save stops training, for every save but the first."""
    with Saver(directory, keep=1) as saver:
        for step in (1, 2):
            weights, state = learner.state()
            saver.wait()
            begin = time.perf_counter()
            saver.save(step, {"model": weights}, {"learner": state})
            seconds = time.perf_counter() - begin
    return seconds


if __name__ == "__main__":
    main(tyro.cli(TrainBenchmark))
