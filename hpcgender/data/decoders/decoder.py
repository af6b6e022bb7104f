"""What every decoder promises: encoded images and augmentation parameters to pixels.

A decoder is a queue: `submit` batches, take each `result` in the same order. It draws no random numbers: every
parameter comes with the sample, so equal parameters give equal pixels on any rank and in any batch.
"""

from __future__ import annotations

from typing import Protocol

import torch

from hpcgender.data.augment import Draws
from hpcgender.data.shards import Encoded

PREFETCH = 3
"""Batches that are decoded ahead."""

MEAN = 127.5
STD = 127.5
"""Pixels reach the network as (value - MEAN) / STD, so in [-1, 1], in every channel."""


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """The network's input back to pixels: uint8 of the same shape."""
    return (images * STD + MEAN).round().clamp(0, 255).to(torch.uint8)


class BadImages(Exception):  # noqa: N818 - it names what there is, as StopIteration does
    """Images of the earliest submitted batch do not decode: `reasons` by their positions in it."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


class Decoder(Protocol):
    """Decodes, augments and normalises batches of 1 to batch_size images, at most PREFETCH of them at a time."""

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        """Starts decoding a batch, whose arrays must not change until its result was taken."""

    def result(self) -> torch.Tensor:
        """The pixels of the earliest submitted batch: float32 (n, 3, size, size) on the device, in [-1, 1].

        Raises BadImages if some do not decode. That batch then stays the earliest, and `resubmit` must come next.
        """

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        """Replaces the batch that had bad images; no images: that batch is dropped."""
