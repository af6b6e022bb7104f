"""What each corruption costs an image, beside the forward pass of a network, on one thread.

    python -m tests.benchmarks.corruptions [--size 64] [--model resnet18]

Medians over images of the mean over the five severities, without decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.robustness.corruptions import CORRUPTIONS, SEVERITIES, Pixels, corrupt
from shard_tools.base.text import Table, print_tables


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times corruptions."""

    size: int = 64
    """Height and width of the network's input, pixels."""
    model: str = "resnet18"
    """Network to compare with."""
    images: int = 32
    """Images, and images in the batch of the forward pass."""


def seconds(work: Callable[[], Any]) -> float:
    """The processor's, in this thread: what else runs on the machine does not count."""
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def corrupt_all(pixels: Pixels, name: str) -> None:
    """An image with each severity."""
    for severity in SEVERITIES:
        corrupt(pixels, name, severity, b"key")


def main(options: Options) -> None:
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.uniform(0, 255, (options.images, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(options.size, options.size), mode="bicubic")
    pixels = smooth.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    network: Any = create(ModelConfig(model=options.model), 2).eval()
    batch = torch.zeros(options.images, 3, options.size, options.size)
    with torch.no_grad():
        network(batch)
        forward = median(seconds(lambda: network(batch)) for _ in range(5)) / options.images
    rows = [(f"forward pass of {options.model}", f"{1e3 * forward:.2f}", "1.00")]
    for name in CORRUPTIONS:
        corrupt_all(pixels[0], name)  # what is imported and kept
        spent = median(seconds(partial(corrupt_all, one, name)) for one in pixels) / len(SEVERITIES)
        rows.append((name, f"{1e3 * spent:.2f}", f"{spent / forward:.2f}"))
    print_tables(Table(("", "ms an image", "of the forward pass"), tuple(rows), f"{options.size} px"))


if __name__ == "__main__":
    main(tyro.cli(Options))
