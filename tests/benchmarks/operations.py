"""How many operations a training step starts: on a GPU each costs the host some microseconds, however small the batch.

    python -m tests.benchmarks.operations [--models NAME ...] [OPTIONS]

Counts what PyTorch dispatches in one eager step on a CPU, which is what it starts on a GPU, but for views and
allocations, which start nothing there. `--compile` makes one graph of the forward pass and the losses and one of the
backward pass, and fuses what is in them; with `--cuda-graphs` the host starts each at once. The last column is what
remains outside of both: the optimizer and its checks, metrics and EMA, each of them one operation for all tensors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from hpcgender.commands.train import TrainConfig
from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.train.learner import Learner

IMAGES = 2
SIZE = 64
NOTHING = ("aten.empty", "aten.detach", "aten._local_scalar_dense", "profiler.")
"""Allocations, aliases, reading a number on the CPU, and marks for the profiler."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that start work on a device, by their names."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.started: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if not func.is_view and not name.startswith(NOTHING):
            self.started[name] += 1
        return func(*args, **(kwargs or {}))


def of_step(config: TrainConfig) -> tuple[Counter[str], int]:
    """The operations of a training step after the first, whose state is there, by their names; how many of them are
    outside of what --compile compiles."""
    device = torch.device("cpu")
    learner = Learner(config, 2, Ranks(0, 1, device), fresh=True)
    learner.network.train()
    tally, norms = Tally(device, config.task_weights, binned=True), GradientNorms(device)
    count, size = config.batch_size, config.image_size
    images = torch.randn(count, 3, size, size)
    batch = Batch(images, torch.arange(count) % 2, torch.full((count,), 30.0), np.arange(count))
    learner.step(batch, 0, 0, 1000, tally, norms)
    with Operations() as operations:
        learner.step(batch, 0, 1, 1000, tally, norms)
    started: Counter[str] = operations.started
    learner.optimizer.zero_grad()
    with Operations() as compiled:
        loss, *_ = learner.objective(
            images.contiguous(memory_format=learner.memory_format), batch.gender, batch.age, 1.0
        )
        loss.backward()
    return started, started.total() - compiled.started.total()


@dataclass(frozen=True, kw_only=True)
class OperationsBenchmark:
    """How many operations a training step starts."""

    models: tuple[str, ...] = ("se_resnet50", "se_resnet152")
    verbose: bool = False
    """Also how many of each kind."""


def main(benchmark: OperationsBenchmark) -> None:
    table = Table(
        "",
        "a step",
        "with EMA",
        "of these outside of --compile's graphs",
        title="Operations that a training step starts",
        title_justify="left",
    )
    for model in benchmark.models:
        config = TrainConfig(model=model, image_size=SIZE, batch_size=IMAGES)
        averaged = TrainConfig(model=model, image_size=SIZE, batch_size=IMAGES, ema=0.999)
        (plain, _), (started, outside) = of_step(config), of_step(averaged)
        table.add_row(model, str(plain.total()), str(started.total()), str(outside))
        if benchmark.verbose:
            print(model, *(f"{count:5} {name}" for name, count in started.most_common()), sep="\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(OperationsBenchmark))
