"""Measures what a training is made of: shards read, images decoded, batches loaded, steps computed; what starves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.data.decoders.decoder import PREFETCH
from hpcgender.data.loader import AHEAD, Batch
from hpcgender.data.packs import Pack
from hpcgender.data.shards import Window
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from hpcgender.doctor.finding import Finding, green, yellow
from hpcgender.doctor.network import synchronize
from hpcgender.memory import enough_memory
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.train.learner import Learner
from shard_tools.manifest import CLASSES, Manifest, read_manifest
from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic

SECONDS = 2.0
"""How long each speed is measured at least."""
STEPS = 3
"""Steps that are timed at least, after as many that are not."""
ROOM = 1.3
"""How many times as fast as steps a GPU's loader should be, so that the slowest batch is no wait."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What one rank has measured while all others did the same; images and bytes per second."""

    read_images_per_s: float
    read_bytes_per_s: float
    decoded_images_per_s: float
    loaded_images_per_s: float
    step_images_per_s: float
    step_s: float
    """Seconds of one step."""
    gradient_bytes: int
    peak_memory_bytes: int
    """Of the GPU; 0 on a CPU."""


def measure(config: TrainConfig, ranks: Ranks) -> Speeds:
    """Measures with the data set that the options name, or with drawn faces if they name none (an empty path)."""
    alone = Ranks(0, 1, ranks.device, ranks.local_rank, ranks.local_world_size)
    with enough_memory("give a smaller --batch-size"), data_set(config) as (manifest, drawn):
        loader = TrainingLoader(config, [Pack(manifest)], alone if drawn else ranks)
        try:
            images, read = reading(loader)
            decoded = decoding(loader)
            loaded = loading(loader)
        finally:
            loader.close()
        part = config.batch_size // (1 if drawn else ranks.world_size)
        step, learner = stepping(config, alone, part)
    cuda = ranks.device.type == "cuda"
    return Speeds(
        read_images_per_s=images,
        read_bytes_per_s=read,
        decoded_images_per_s=decoded,
        loaded_images_per_s=loaded,
        step_images_per_s=part / step,
        step_s=step,
        gradient_bytes=sum(4 * parameter.numel() for parameter in learner.parameters),
        peak_memory_bytes=torch.cuda.max_memory_reserved(ranks.device) if cuda else 0,
    )


@contextmanager
def data_set(config: TrainConfig) -> Iterator[tuple[Manifest, bool]]:
    """The packed data set of the options, or drawn faces, and whether they are drawn."""
    if config.data != Path():
        yield read_manifest(config.data), False
        return
    with TemporaryDirectory(prefix="hpcgender-doctor-") as name:
        out = Path(name) / "shards"
        count = (AHEAD + 2 * PREFETCH) * config.batch_size + 16  # or the loader could not read and decode ahead
        with redirect_stdout(StringIO()):
            pack(Synthetic(count=count, size=config.image_size, seed=0, out=out, val=0.05, test=0, workers=1))
        yield read_manifest(out), True


def reading(loader: TrainingLoader) -> tuple[float, float]:
    """Images and bytes per second that are read as the loader reads them; what the kernel holds of them is let go."""
    for path in filter(Path.exists, loader.reader.paths):  # what is missing the reader tells
        with path.open("rb") as shard:
            os.posix_fadvise(shard.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    order = loader.order(0)
    window = Window(loader.reader, order)
    begin, before, images = time.perf_counter(), loader.reader.bytes_read, 0
    try:
        waiting = []
        for _, places, _ in loader.plan(order, 0):
            window.read_ahead(places)
            waiting.append(places)
            if len(waiting) > AHEAD:
                images += len(window.take(waiting.pop(0)))
            if time.perf_counter() - begin > SECONDS:
                break
        for places in waiting:
            images += len(window.take(places))
    finally:
        window.close()
    seconds = time.perf_counter() - begin
    return images / seconds, (loader.reader.bytes_read - before) / seconds


def decoding(loader: TrainingLoader) -> float:
    """Images per second that are decoded and augmented, of one batch in memory again and again."""
    positions, places, draws = next(loader.plan(loader.order(0), 0))
    encoded = [loader.reader.read_image(int(sample)) for sample in places.samples]
    decoder, done = loader.decoder, 0
    decoder.submit(encoded, draws)
    decoder.result()
    decoder.submit(encoded, draws)
    begin = time.perf_counter()
    while time.perf_counter() - begin < SECONDS or not done:
        decoder.submit(encoded, draws)
        decoder.result()
        done += 1
    decoder.result()
    synchronize(loader.ranks.device)
    return len(positions) * (done + 1) / (time.perf_counter() - begin)


def loading(loader: TrainingLoader) -> float:
    """Images per second that the loader delivers to a caller that does nothing with them."""
    begin, images, epoch = 0.0, 0, 0
    while True:
        batches = loader.epoch(epoch)
        try:
            for batch in batches:
                if not begin:  # the first one waits for all that is read ahead
                    begin = time.perf_counter()
                    continue
                images += len(batch.samples)
                if images and time.perf_counter() - begin > SECONDS:
                    synchronize(loader.ranks.device)
                    return images / (time.perf_counter() - begin)
        finally:
            batches.close()
        epoch += 1


def stepping(config: TrainConfig, alone: Ranks, part: int) -> tuple[float, Learner]:
    """Seconds of a training step on `part` images in memory, in the precision of training, and its learner."""
    learner = Learner(config, len(CLASSES), alone, fresh=True)
    learner.network.train()
    device = alone.device
    tally, norms = Tally(device, config.task_weights, binned=True), GradientNorms(device)
    images = torch.randn(part, 3, config.image_size, config.image_size, device=device)
    gender = torch.arange(part, device=device) % 2
    batch = Batch(images, gender, torch.full((part,), -1.0, device=device), gender.cpu().numpy())
    done, begin = 0, 0.0
    while True:
        learner.step(batch, 0, done, 10**6, tally, norms)
        done += 1
        if done == STEPS:
            synchronize(device)
            begin = time.perf_counter()
        elif done >= 2 * STEPS and time.perf_counter() - begin > SECONDS:
            synchronize(device)
            return (time.perf_counter() - begin) / (done - STEPS), learner


def rate(per_s: float) -> str:
    """A speed for people: 1,234, or 0.12 where it is slow."""
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def judge_reading(speeds: Speeds) -> Finding:
    """Whether shards are read as fast as steps need their images."""
    numbers = {"images_per_s": speeds.read_images_per_s, "bytes_per_s": speeds.read_bytes_per_s}
    found = f"{rate(speeds.read_bytes_per_s / 1e6)} MB/s, {rate(speeds.read_images_per_s)} images/s in each process"
    if speeds.read_images_per_s < ROOM * speeds.step_images_per_s:
        advice = "copy the shards to the nodes' own disks: --stage-to; or see whether the file system is busy"
        return yellow("shards", f"{found}, and steps take {rate(speeds.step_images_per_s)}", advice, **numbers)
    return green("shards", found, **numbers)


def judge_decoding(speeds: Speeds, on_gpu: bool) -> Finding:
    """Whether images are decoded as fast as steps need them, before anything is read."""
    per_s, step = speeds.decoded_images_per_s, speeds.step_images_per_s
    found = f"{rate(per_s)} images/s in each process"
    if per_s < ROOM * step:
        return yellow(
            "decode",
            f"{found}, and steps take {rate(step)}",
            "ask for more --cpus for each GPU, or try --backend dali-mixed"
            if on_gpu
            else "give each process more cores, or train a larger model",
            images_per_s=per_s,
        )
    return green("decode", found, images_per_s=per_s)


def judge_step(speeds: Speeds, slowest: float, where: str, precision: str) -> Finding:
    """How fast steps are, and whether a rank, which runs on the host `where`, is slow beside the others."""
    per_s = speeds.step_images_per_s
    found = f"{rate(per_s)} images/s in each process, {1e3 * speeds.step_s:,.0f} ms a step, {precision}"
    numbers = {
        "images_per_s": per_s,
        "step_s": speeds.step_s,
        "gradient_bytes": speeds.gradient_bytes,
        "peak_memory_bytes": speeds.peak_memory_bytes,
    }
    if slowest < 0.8 * per_s:
        advice = f"leave {where} out: all others wait for it; its GPU may be hot, shared or throttled (nvidia-smi -q)"
        return yellow("step", f"{found}, but {rate(slowest)} on {where}", advice, **numbers)
    return green("step", found, **numbers)


def judge_loading(speeds: Speeds, on_gpu: bool) -> Finding:
    """Whether steps wait for images. On a CPU both take turns on the same cores."""
    loaded, step = speeds.loaded_images_per_s, speeds.step_images_per_s
    found = f"{rate(loaded)} images/s beside steps of {rate(step)}"
    numbers = {"images_per_s": loaded}
    if on_gpu and loaded < ROOM * step:
        return yellow(
            "loader",
            f"{found}: the GPU starves",
            "ask for more --cpus for each GPU, try --backend dali-mixed, or stage the shards with --stage-to",
            **numbers,
        )
    if not on_gpu and loaded < 2 * step:
        share = step / (step + loaded)
        advice = "train larger images or a larger model here, or take a machine with more cores"
        return yellow("loader", f"{found}: a CPU spends {share:.0%} of its time on images", advice, **numbers)
    return green("loader", f"{found}: nothing starves", **numbers)
