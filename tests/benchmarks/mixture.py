"""How fast the loader is on a mixture of data sets, against one data set with the same images.

    python -m tests.benchmarks.mixture [--quick]

Drawn faces of 112x112 pixels, in one data set, and halved into two that are mixed. Contenders take turns in one run, an
epoch each.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
import tyro

from hpcgender.data.config import BatchConfig
from hpcgender.data.packs import read_packs
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from shard_tools.pack import pack
from tests.benchmarks.loader import cores, epochs, python_ms
from tests.benchmarks.pack import source, write_source
from tests.benchmarks.ratios import measure, print_ratio, print_speeds


@dataclass(frozen=True, kw_only=True)
class MixtureBenchmark:
    """How fast the loader is on a mixture of data sets, against one data set with the same images."""

    quick: bool = False
    """Few images and one round: to see that it runs, not how fast."""


def main(config: MixtureBenchmark) -> None:
    """Runs the benchmark and prints its table and ratios."""
    images, rounds = (2_560, 1) if config.quick else (20_480, 5)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark-mixture-") as scratch:
        whole, half, other = (packed(Path(scratch) / name, count) for name, count in sizes(images))
        loaders = {
            "one data set": loader(whole),
            "two, 1:1": loader(Path(f"{half}=1,{other}=1")),
            "two, 9:1": loader(Path(f"{half}=9,{other}=1")),
        }
        contenders = {name: epochs(one) for name, one in loaders.items()}
        for epoch in contenders.values():
            epoch()
        speeds = measure(contenders, rounds, lambda: None)
        python = {name: [sum(python_ms(one, number)) for number in range(rounds)] for name, one in loaders.items()}
        for one in loaders.values():
            one.close()
    print_speeds(f"{images:,} images to batches of {BatchConfig.batch_size}", "images/s", speeds)
    for name, times in python.items():
        print(f"{name}: Python takes {statistics.median(times):.2f} ms of each batch")
    alone, even, uneven = speeds.values()
    print_ratio("mixture_over_one", even, alone, "at least 0.95")
    print_ratio("uneven_mixture_over_one", uneven, alone, "at least 0.95")


def sizes(images: int) -> list[tuple[str, int]]:
    return [("whole", images), ("half", images // 2), ("other", images - images // 2 - 1)]  # no two are equal


def packed(root: Path, count: int) -> Path:
    """A data set of drawn faces."""
    root.mkdir()
    for _ in write_source(root, count, 112):
        pass
    with redirect_stdout(StringIO()):
        pack(source(root, workers=cores(), shard_mb=4, decode=False))
    return root / "out"


def loader(data: Path) -> TrainingLoader:
    """The loader of a training run with the default options, in one process."""
    config = BatchConfig(data=data, workers=cores(), augment="light")
    return TrainingLoader(config, read_packs(data), Ranks(0, 1, torch.device("cpu")))


if __name__ == "__main__":
    main(tyro.cli(MixtureBenchmark, config=(tyro.conf.FlagCreatePairsOff,)))
