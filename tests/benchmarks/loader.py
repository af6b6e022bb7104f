"""How fast the loader is against DALI's own reader, torchvision's ImageFolder and webdataset, and what Python costs it.

    python -m tests.benchmarks.loader [--quick] [--gpu] [--data DIR] [--threads N]

loads drawn faces of 112x112 pixels, or the training images of a packed data set. Contenders take turns in one run, an
epoch each, with as many threads or processes; none decodes for its next epoch, so that no turn costs another.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import torch
import tyro

from hpcgender.data.augment import Draws
from hpcgender.data.config import Backend, BatchConfig
from hpcgender.data.decoders.decoder import Decoder
from hpcgender.data.packs import Pack
from hpcgender.data.shards import Encoded
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from shard_tools.base.errors import BAD_INPUT, UserError
from shard_tools.manifest import Manifest, read_manifest
from shard_tools.pack import pack
from tests.benchmarks.loader_contenders import Epoch, Task, dali_reader, image_folder, web_dataset, write_files
from tests.benchmarks.pack import source, write_source
from tests.benchmarks.ratios import measure, print_ratio, print_speeds

MAX_PYTHON_MS = 2.0


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark:
    """How fast the loader is against DALI's own reader, ImageFolder and webdataset, and what Python costs it."""

    quick: bool = False
    """Few images and one round: to see that it runs, not how fast."""
    gpu: bool = False
    """Decode on the first GPU, where a contender can, and have every batch there."""
    data: Path | None = None
    """Packed data set to load instead of drawn faces; its training images are copied to files for ImageFolder."""
    threads: int = field(default_factory=cores)
    """Threads or processes of each contender; without, one for each core."""


def main(config: LoaderBenchmark) -> None:
    """Runs the benchmark and prints its table and ratios; UserError if its options do not fit."""
    if config.gpu and not torch.cuda.is_available():
        raise UserError("--gpu: PyTorch finds no GPU on this machine; leave the option out, or run on one that has it")
    if config.threads < 1:
        raise UserError(f"--threads {config.threads}: give at least 1")
    images, rounds = (2_560, 1) if config.quick else (20_480, 5)
    with tempfile.TemporaryDirectory(prefix="benchmark-loader-") as scratch:
        root = Path(scratch)
        manifest = read_manifest(config.data) if config.data else packed(root, images, config.threads)
        write_files(manifest, root / "files")
        device = torch.device("cuda", 0) if config.gpu else torch.device("cpu")
        batch = BatchConfig.batch_size
        task = Task(manifest, device, config.threads, batch, BatchConfig.image_size)
        compare(task, root / "files", rounds)


def packed(root: Path, count: int, workers: int) -> Manifest:
    """Drawn faces in many small shards, as webdataset's workers share whole ones."""
    for _ in write_source(root, count, 112):
        pass
    with redirect_stdout(StringIO()):
        pack(source(root, workers=workers, shard_mb=4, decode=False))
    return read_manifest(root / "out")


def compare(task: Task, files: Path, rounds: int) -> None:
    """Prints speeds and their ratios, and the time that Python takes."""
    torch.set_num_threads(1)  # PyTorch itself has nothing to do here that a second thread would make faster
    # Those that fork come first, before other threads are there. What a first epoch starts is not timed.
    contenders: dict[str, Epoch] = {
        "torchvision ImageFolder, PIL": image_folder(task, files),
        "webdataset, torchvision": web_dataset(task),
    }
    for epoch in contenders.values():
        epoch()
    loader, other = own_loader(task, "dali"), own_loader(task, "torchvision")
    own = {
        "DALI's own reader": dali_reader(task),
        "hpcgender": epochs(loader),
        "hpcgender, backend torchvision": epochs(other),
    }
    for epoch in own.values():
        epoch()
    speeds = measure(own | contenders, rounds, lambda: None)
    parts = [python_ms(loader, number) for number in range(rounds)]
    loader.close()
    other.close()

    count, size = task.manifest.split("train").samples, task.image_size
    where = torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else "CPU"
    print_speeds(
        f"{count:,} images to batches of {task.batch_size} of {size}x{size} pixels; {task.threads} threads, {where}",
        "images/s",
        speeds,
    )
    python_alone, in_dali = (statistics.median(part) for part in zip(*parts, strict=True))
    python = [sum(part) for part in parts]
    print(
        f"Python takes {statistics.median(python):.2f} ms of each batch of hpcgender's, all threads together: "
        f"{python_alone:.2f} ms itself, and {in_dali:.2f} ms in calls of DALI"
    )
    reader, ours, _, folder, web = speeds.values()
    print_ratio("loader_over_dali", ours, reader, "at least 0.95")
    print_ratio("loader_over_imagefolder", ours, folder, "at least 2.5")
    print_ratio("loader_over_webdataset", ours, web, "at least 2")
    print_ratio("python_ms_per_batch_over_2_ms", python, [MAX_PYTHON_MS] * rounds, "at most 1")


def own_loader(task: Task, backend: Backend) -> TrainingLoader:
    """The loader of a training run with the default options, in one process."""
    config = BatchConfig(
        data=task.manifest.root,
        batch_size=task.batch_size,
        image_size=task.image_size,
        workers=task.threads,
        backend=backend,
        augment="light",
    )
    return TrainingLoader(config, [Pack(task.manifest)], Ranks(0, 1, task.device))


def epochs(loader: TrainingLoader) -> Epoch:
    """Loads the epochs of a loader one after the other."""
    number = 0

    def epoch() -> int:
        nonlocal number
        images = sum(len(batch.images) for batch in loader.epoch(number))
        if loader.ranks.device.type == "cuda":
            torch.cuda.synchronize(loader.ranks.device)
        number += 1
        return images

    return epoch


class Immediate:
    """A decoder that gives every batch back at once, without pixels of its own."""

    def __init__(self, image_size: int, device: torch.device) -> None:
        self.sizes: deque[int] = deque()
        self.pixels = torch.zeros((1, 3, image_size, image_size), device=device)

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.sizes.append(len(encoded))

    def result(self) -> torch.Tensor:
        return self.pixels.expand(self.sizes.popleft(), -1, -1, -1)

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        raise AssertionError  # no image was bad


class Timed:
    """A decoder that adds up the CPU time, in seconds, of the thread that calls it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.seconds = 0.0

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        begin = time.thread_time()
        self.decoder.submit(encoded, draws)
        self.seconds += time.thread_time() - begin

    def result(self) -> torch.Tensor:
        begin = time.thread_time()
        images = self.decoder.result()
        self.seconds += time.thread_time() - begin
        return images

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.decoder.resubmit(encoded, draws)


def python_ms(loader: TrainingLoader, number: int) -> tuple[float, float]:
    """CPU time that an epoch's work in Python takes, milliseconds a batch, all threads together.

    By two epochs. Of the first, whose decoder gives every batch back at once, the process's user time:
    order, draws, slicing and bookkeeping, and the start of the epoch; not the kernel's, which copies what is read. Of
    the second that of the calling thread within the decoder, while DALI decodes: handing over the bytes and the draws,
    which copies them, and taking the pixels. The work of DALI's own threads is not in it, nor is waiting.
    """
    decoder = loader.decoder
    timed = Timed(decoder)
    try:
        loader.decoder = Immediate(BatchConfig.image_size, loader.ranks.device)
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        batches = sum(1 for _ in loader.epoch(number))
        seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - begin
        loader.decoder = timed
        for _ in loader.epoch(number):
            pass
    finally:
        loader.decoder = decoder
    return seconds / batches * 1e3, timed.seconds / batches * 1e3


if __name__ == "__main__":
    try:
        main(tyro.cli(LoaderBenchmark, config=(tyro.conf.FlagCreatePairsOff,)))
    except UserError as error:
        print(f"benchmarks.loader: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
