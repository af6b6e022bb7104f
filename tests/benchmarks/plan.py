"""How well `hpcgender plan` foretells an epoch from what `hpcgender doctor` has measured on the same machine.

    python -m tests.benchmarks.plan [--model NAME] [--image-size N] [--batch-size N] [--data DIR]

On drawn faces, unless a data set is named. As a user does it, the machine is examined, the training planned, and
trained. The first epoch includes warm-up, so the second is compared, validation and checkpoint included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import tyro

from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic

REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True, kw_only=True)
class PlanBenchmark:
    """How well `hpcgender plan` foretells an epoch from what `hpcgender doctor` has measured."""

    model: str = "resnet18"
    """Model to train."""
    image_size: int = 64
    """Height and width of the images, pixels."""
    batch_size: int = 32
    """Images in a batch."""
    data: Path | None = None
    """Packed data set; default: 800 drawn faces."""


def main(benchmark: PlanBenchmark) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-plan-") as name:
        root = Path(name)
        data, size = benchmark.data, benchmark.image_size
        if data is None:
            data = root / "shards"
            with redirect_stdout(StringIO()):
                pack(Synthetic(count=800, size=size, seed=0, out=data, val=0.1, test=0))
        options = {
            "data": data.absolute(),
            "model": benchmark.model,
            "image-size": size,
            "batch-size": benchmark.batch_size,
        }
        flags = [str(part) for option, value in options.items() for part in (f"--{option}", value)]
        hpcgender(root, "doctor", *flags)
        planned = json.loads(hpcgender(root, "plan", *flags, "--epochs", "2", "--json"))
        hpcgender(root, "train", *flags, "--epochs", "2")
        records = [json.loads(line) for line in (root / "runs" / "train" / "metrics.jsonl").read_text().splitlines()]
    measured = records[1]["seconds"]
    print(f"{benchmark.model}, {size} pixels, batches of {benchmark.batch_size}, {os.cpu_count()} cores")
    print(f"planned: an epoch of {planned['epoch_s']:.1f} s, {planned['images_per_s']:.0f} images/s")
    print(f"trained: an epoch of {measured:.1f} s, {records[1]['images_per_s']:.0f} images/s")
    print(f"RATIO planned_over_trained {planned['epoch_s'] / measured:.2f} (goal 0.75 to 1.25)")


def hpcgender(root: Path, *words: str) -> str:
    """What a command of hpcgender prints, run in a process of its own."""
    command = [sys.executable, "-m", "hpcgender", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(tyro.cli(PlanBenchmark))
