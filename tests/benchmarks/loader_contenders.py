"""The peers of the loader, each at its best: DALI's own reader, torchvision's ImageFolder, webdataset.

All crop, resize, flip and jitter colours as the preset `light` does, with draws of their own, and none gives labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import webdataset
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from shard_tools.look import EXTENSION_NAMES
from shard_tools.manifest import Manifest

Epoch = Callable[[], int]
"""Loads every whole batch of an epoch and returns how many images that was."""

AREA = (0.8, 1.0)
RATIO = (1 / 1.1, 1.1)
FLIP = 0.5
FACTOR = (0.8, 1.2)
"""Of brightness, contrast and saturation."""
HUE = 3.0
"""Degrees, either way."""
MEAN = STD = 127.5
SHUFFLE = 1000
"""Images among which webdataset and DALI draw the next."""
PREFETCH = 3
"""Batches that DALI has under way."""


@dataclass(frozen=True)
class Task:
    """What every contender has to do: batches of square images on a device, with so many threads or processes."""

    manifest: Manifest
    device: torch.device
    threads: int
    batch_size: int
    image_size: int

    @property
    def epoch_batches(self) -> int:
        return self.manifest.split("train").samples // self.batch_size


def reader_graph(task: Task) -> Any:
    """Images read, decoded and augmented by DALI alone: float32 (n, 3, size, size)."""
    from nvidia.dali import fn, types

    paths = task.manifest.shard_paths("train")
    encoded = fn.readers.webdataset(
        paths=[str(path) for path in paths],
        index_paths=[str(path.with_suffix(".idx")) for path in paths],
        ext=";".join(EXTENSION_NAMES),
        missing_component_behavior="error",
        random_shuffle=True,
        initial_fill=SHUFFLE,
    )
    images = fn.decoders.image_random_crop(
        encoded,
        random_area=AREA,
        random_aspect_ratio=RATIO,
        device="mixed" if task.device.type == "cuda" else "cpu",
        output_type=types.RGB,
    )
    size = (task.image_size, task.image_size)
    images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    brightness, contrast, saturation = (fn.random.uniform(range=FACTOR) for _ in range(3))
    hue = fn.random.uniform(range=(-HUE, HUE))
    images = fn.color_twist(images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    mirror = fn.random.coin_flip(probability=FLIP)
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mirror=mirror, mean=[MEAN] * 3, std=[STD] * 3
    )


def dali_reader(task: Task) -> Epoch:
    """A bare DALI pipeline over `readers.webdataset`."""
    from nvidia.dali import pipeline_def  # which other benchmarks do without

    pipeline = pipeline_def(reader_graph)(
        task,
        batch_size=task.batch_size,
        num_threads=task.threads,
        device_id=task.device.index,
        prefetch_queue_depth=PREFETCH,
        exec_pipelined=False,  # a scheduled run is one batch, so that no epoch decodes for the next
        exec_dynamic=True,
    )
    pipeline.build()

    def epoch() -> int:
        images = 0
        for _ in range(min(PREFETCH, task.epoch_batches)):
            pipeline.schedule_run()
        for step in range(task.epoch_batches):
            (batch,) = pipeline.share_outputs()
            pipeline.release_outputs()
            if step + PREFETCH < task.epoch_batches:
                pipeline.schedule_run()
            images += len(torch.utils.dlpack.from_dlpack(batch.as_tensor()))
        return images

    return epoch


def image_folder(task: Task, directory: Path) -> Epoch:
    """ImageFolder over files, with PIL, as most training scripts have it."""
    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(task.image_size, AREA, RATIO),
            transforms.RandomHorizontalFlip(FLIP),
            transforms.ColorJitter(FACTOR, FACTOR, FACTOR, HUE / 360),
            transforms.ToTensor(),
            transforms.Normalize([MEAN / 255] * 3, [STD / 255] * 3),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(directory), augmentation),
        task.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=task.threads,
        persistent_workers=True,
        pin_memory=task.device.type == "cuda",
    )
    return lambda: count(loader, task.device)


def web_dataset(task: Task) -> Epoch:
    """webdataset with torchvision's decoder and transforms on tensors; workers batch, as its authors advise."""
    augmentation = v2.Compose(
        [
            v2.RandomResizedCrop(task.image_size, AREA, RATIO, antialias=True),
            v2.RandomHorizontalFlip(FLIP),
            v2.ToDtype(torch.float32, scale=True),  # the hue is turned in floats: converting first is faster
            v2.ColorJitter(FACTOR, FACTOR, FACTOR, HUE / 360),
            v2.Normalize([MEAN / 255] * 3, [STD / 255] * 3),
        ]
    )

    def decoded(encoded: bytes) -> Any:
        return augmentation(decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB))

    paths = [str(path) for path in task.manifest.shard_paths("train")]
    dataset = (
        webdataset.WebDataset(
            paths, shardshuffle=len(paths), select_files=lambda name: not name.endswith(".json"), empty_check=False
        )
        .shuffle(SHUFFLE)
        .to_tuple(";".join(EXTENSION_NAMES))
        .map_tuple(decoded)
        .batched(task.batch_size, partial=True)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=task.threads,
        persistent_workers=True,
        pin_memory=task.device.type == "cuda",
    )
    return lambda: count(loader, task.device)


def count(loader: Any, device: torch.device) -> int:
    """Images that a loader gives in an epoch, each batch moved to the device."""
    images = sum(len(batch.to(device, non_blocking=True)) for batch, *_ in loader)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images


def write_files(manifest: Manifest, directory: Path) -> None:
    """Writes the training images as `<gender>/<number>.jpg`, the same bytes."""
    index, paths = manifest.index("train"), manifest.shard_paths("train")
    for gender in set(index["gender"].tolist()):
        (directory / str(gender)).mkdir(parents=True)
    files = [path.open("rb") for path in paths]
    for number, (shard, offset, length, gender) in enumerate(index[["shard", "offset", "length", "gender"]].tolist()):
        encoded = os.pread(files[shard].fileno(), length, offset)
        (directory / str(gender) / f"{number:08d}.jpg").write_bytes(encoded)
    for file in files:
        file.close()
