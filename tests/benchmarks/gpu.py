"""What a GPU does with this code: decoding, loading against training, steps against timm's, idle time, utilisation.

    python -m tests.benchmarks.gpu [--quick] [--device cpu] [--models NAME ...] [--batches N ...] [--modes MODE ...]

One run prints all. Decoders are timed by themselves, on drawn faces, with 1 to all threads. Steps are forward pass,
cross-entropy, backward pass and Nesterov SGD on a batch in memory: eager, with torch.compile, and with its CUDA graphs
(mode reduce-overhead). MFU is the speed of a step's multiplications as a fraction of a large matrix product's in the
same precision. A GPU idles where no kernel and no copy runs on it, as its profiler sees 30 steps. Compiling takes
about a minute for each model and batch: with all of the defaults that is most of an hour; each line is printed when it
is known. On a CPU it tells only that it runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro

from hpcgender.commands.train import TrainConfig
from hpcgender.data.augment import draw
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import Backend, BatchConfig, has_dali
from hpcgender.data.decoders import create_decoder
from hpcgender.data.decoders.decoder import PREFETCH
from hpcgender.data.packs import Pack
from hpcgender.data.shards import ShardReader
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.models.table import cost
from hpcgender.precision import Precision
from hpcgender.train.learner import Learner
from shard_tools.base.errors import BAD_INPUT, UserError
from shard_tools.manifest import Manifest, read_manifest
from tests.benchmarks.loader import cores, epochs, packed
from tests.benchmarks.train import matmul_speed, own_steps, timed, timm_steps

Mode = Literal["eager", "compile", "graphs"]
COMPILED = {"compile": "default", "graphs": "reduce-overhead"}
"""torch.compile's names of the modes."""


@dataclass(frozen=True, kw_only=True)
class GpuBenchmark:
    """Decoding, loading, steps against timm's, idle time and utilisation of a GPU."""

    quick: bool = False
    """Small models and few images: to see that it runs, not how fast."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Where to compute."""
    models: tuple[str, ...] = ("se_resnet50", "se_resnet152")
    """Models that timm has, too."""
    batches: tuple[int, ...] = (32, 256, 1024)
    """Images in a batch."""
    modes: tuple[Mode, ...] = ("eager", "compile", "graphs")
    """How steps are run."""
    image_size: int = 112
    """Height and width of images, pixels."""
    data: Path | None = None
    """Packed data set to decode and load instead of drawn faces."""


def main(config: GpuBenchmark) -> None:
    """Prints all measurements; UserError where there is no GPU."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "PyTorch finds no GPU on this machine: run this on one that has it, or give --device cpu --quick"
        )
    if config.quick:
        config = replace(config, image_size=48)
    device = torch.device(config.device, 0) if config.device == "cuda" else torch.device("cpu")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{where}, {cores()} cores, torch {torch.__version__}, images of {config.image_size}x{config.image_size} px")
    with tempfile.TemporaryDirectory(prefix="benchmark-gpu-") as scratch:
        count = 300 if config.quick else 20_480
        manifest = (
            read_manifest(config.data) if config.data else packed(Path(scratch), count, 1 if config.quick else cores())
        )
        decoding(config, manifest, device)
        loading(config, manifest, device)
    steps(config, device)


def thread_counts() -> list[int]:
    """1, 4, 8, 16 threads, as far as there are cores, and all of them."""
    return sorted({count for count in (1, 4, 8, 16, cores()) if count <= cores()})


def decoding(config: GpuBenchmark, manifest: Manifest, device: torch.device) -> None:
    """Prints how many images each decoder makes per second, with the augmentation of a training."""
    index = manifest.index("train")
    size, rounds = (32, 2) if config.quick else (256, 40)
    backends: list[Backend] = ["torchvision"]
    if has_dali():
        backends += ["dali", "dali-mixed"] if device.type == "cuda" else ["dali"]
    augmentation = read_augmentation("light")
    reader = ShardReader(index, manifest.shard_paths("train"), "pack it again")
    encoded = [reader.read_image(sample) for sample in range(min(size, len(index)))]
    reader.close()
    draws = draw(augmentation, 0, 0, torch.arange(len(encoded)).numpy())
    for backend in backends:
        for threads in thread_counts():
            decoder = create_decoder(backend, len(encoded), config.image_size, device, augmentation, threads)

            def one() -> torch.Tensor:
                pixels = decoder.result()  # noqa: B023 - it is called before the next decoder is made
                decoder.submit(encoded, draws)  # noqa: B023
                return pixels

            for _ in range(PREFETCH):
                decoder.submit(encoded, draws)
            pixels = one()
            speed = timed(one, pixels, rounds)
            for _ in range(PREFETCH):
                decoder.result()
            print(f"decode {backend:<11} {threads:>3} threads {speed:>9,.0f} images/s", flush=True)


def loading(config: GpuBenchmark, manifest: Manifest, device: torch.device) -> None:
    """Prints the speeds of the loader alone, of a step alone, and of both together: which of them starves."""
    batch = 32 if config.quick else 256
    model = "se_resnet18" if config.quick else config.models[0]
    options = TrainConfig(data=manifest.root, model=model, image_size=config.image_size, batch_size=batch, lr=0.001)
    reading = BatchConfig(data=manifest.root, image_size=config.image_size, batch_size=batch)
    ranks = Ranks(0, 1, device)
    loader = TrainingLoader(reading, [Pack(manifest)], ranks)
    load = epochs(loader)
    load()  # the first epoch starts what the others use
    images = len(loader) * batch
    alone = timed(load, torch.empty(images, device=device), 1)
    learner = Learner(options, 2, ranks, fresh=True)
    noise = torch.randn(batch, 3, config.image_size, config.image_size, device=device)
    step = own_steps(learner, noise, torch.arange(batch, device=device) % 2, 2 if config.quick else 40)
    step()
    own = step()
    tally, norms = Tally(device, options.task_weights, binned=True), GradientNorms(device)

    def train() -> None:
        for number, part in enumerate(loader.epoch(1)):
            learner.step(part, 0, number, 100_000, tally, norms)

    both = timed(train, torch.empty(images, device=device), 1)
    loader.close()
    print(f"loader alone {alone:,.0f}, step of {model} alone {own:,.0f}, both together {both:,.0f} images/s")
    starves = "the GPU waits for images" if alone < own else "the loader is ahead"
    print(f"RATIO loader_over_step {alone / own:.2f} ({starves}), both_over_slower {both / min(alone, own):.2f}")


def steps(config: GpuBenchmark, device: torch.device) -> None:
    """Prints the speeds of steps, own and timm's, for each model, batch and mode."""
    models = ("se_resnet18",) if config.quick else config.models
    batches = (4,) if config.quick else config.batches
    count = 2 if config.quick else 30
    peak = matmul_speed(Precision("auto", device))
    print(f"a large matrix product: {peak / 1e12:.1f} TFLOP/s in {Precision('auto', device).name}")
    print(f"{'':<26}{'batch':>6}{'mode':>9}{'images/s':>11}{'over timm':>11}{'MFU':>7}{'idle':>7}")
    for model, batch, mode in ((m, b, mode) for m in models for b in batches for mode in config.modes):
        options = TrainConfig(model=model, image_size=config.image_size, batch_size=batch, lr=1e-4)
        theirs = measured(partial(timm_work, options, device, mode, count))
        ours = measured(partial(own_work, options, device, mode, count))
        flops = 3 * 2 * cost(options, config.image_size).macs  # a backward pass is two forward passes
        for name, found, over in ((f"timm {model}", theirs, theirs), (f"hpcgender {model}", ours, theirs)):
            line = f"{name:<26}{batch:>6}{mode:>9}"
            if found is None:
                print(f"{line}   out of memory", flush=True)
                continue
            speed, idle = found
            ratio = f"{speed / over[0]:.2f}" if over else "-"
            share = "-" if idle is None else f"{idle:.0%}"
            print(f"{line}{speed:>11,.0f}{ratio:>11}{flops * speed / peak:>7.1%}{share:>7}", flush=True)


Work = Callable[[], float]
"""Does some steps; returns images per second."""


def timm_work(options: TrainConfig, device: torch.device, mode: Mode, count: int) -> Work:
    """Steps of timm's model."""
    images, gender = noise_of(options, device)
    return timm_steps(options, device, images, gender, count, compiled=COMPILED.get(mode, ""))


def own_work(options: TrainConfig, device: torch.device, mode: Mode, count: int) -> Work:
    """Steps of a training, including their metrics."""
    images, gender = noise_of(options, device)
    compiled = replace(options, compile=mode != "eager", cuda_graphs=mode == "graphs" and device.type == "cuda")
    learner = Learner(compiled, 2, Ranks(0, 1, device), fresh=True)
    return own_steps(learner, images, gender, count)


def noise_of(options: TrainConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of noise, and labels."""
    count, size = options.batch_size, options.image_size
    return torch.randn(count, 3, size, size, device=device), torch.arange(count, device=device) % 2


def measured(make: Callable[[], Work]) -> tuple[float, float | None] | None:
    """Images per second, and the share of time that the GPU idles, None on a CPU; None if memory does not suffice."""
    try:
        work = make()
        work()  # the first steps tune and compile
        return work(), idle_share(work)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def idle_share(work: Work) -> float | None:
    """The fraction of the time from the first to the last kernel in which neither a kernel nor a copy runs."""
    if not torch.cuda.is_available():
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    events = (event for event in profile.events() if event.device_type.name == "CUDA")
    return idle_of([(event.time_range.start, event.time_range.end) for event in events])


def idle_of(spans: Sequence[tuple[float, float]]) -> float | None:
    """The fraction of the time from the first beginning to the last end that no span covers; None without spans."""
    if not spans:
        return None
    merged = list(union(sorted(spans)))
    return 1 - sum(end - begin for begin, end in merged) / (merged[-1][1] - merged[0][0])


def union(spans: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The spans, sorted by their beginnings, with those joined that overlap."""
    begin, end = spans[0]
    for its_begin, its_end in spans[1:]:
        if its_begin > end:
            yield begin, end
            begin, end = its_begin, its_end
        end = max(end, its_end)
    yield begin, end


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    try:
        main(tyro.cli(GpuBenchmark, config=(tyro.conf.FlagCreatePairsOff,)))
    except UserError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
