"""Encoded images and drawn parameters to pixels: what every backend promises, and the choice of one.

A backend is fed and emptied by hand: `submit` batches, take each `result` in the same order. It draws nothing itself:
every parameter comes with the sample, so the same draws give the same pixels whoever asks, in any batch.
"""

from __future__ import annotations

from typing import Protocol

import torch

from hpcgender.data.augment_params import Draws
from hpcgender.data.augmentation import Augmentation
from hpcgender.data.config import Backend
from hpcgender.data.shards import Encoded
from shard_tools.base.errors import UserError, one_line

PREFETCH = 3
"""Batches that are decoded ahead."""

MEAN = 127.5
STD = 127.5
"""Pixels reach the network as (value - MEAN) / STD, so in [-1, 1], in every channel."""


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Images as the network sees them back to pixels: uint8 of the same shape."""
    return (images * STD + MEAN).round().clamp(0, 255).to(torch.uint8)


class BadImages(Exception):  # noqa: N818 - it says what there is, as StopIteration does
    """Images of the earliest batch under way do not decode: at `positions` in it; the text says why the first."""

    def __init__(self, positions: list[int], reason: str) -> None:
        super().__init__(reason)
        self.positions = positions


class Decoder(Protocol):
    """Decodes, varies and normalises batches of 1 to batch_size images, at most PREFETCH of them under way."""

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        """Starts decoding a batch, which nobody may change until its result was taken."""

    def result(self) -> torch.Tensor:
        """The pixels of the earliest batch under way: float32 (n, 3, size, size) on the device, in [-1, 1].

        Raises BadImages if some do not decode. That batch then stays the earliest, and `resubmit` must come next.
        """

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        """Puts another batch into the place of the one whose images were bad; no images: the batch is dropped."""


def create_decoder(
    backend: Backend,
    batch_size: int,
    image_size: int,
    device: torch.device,
    augmentation: Augmentation | None,
    threads: int,
) -> Decoder:
    """The decoder of a backend, which works in `threads` threads; `augmentation` is None for evaluation.

    Raises UserError where DALI is asked for and cannot be imported.
    """
    if backend == "torchvision":
        from hpcgender.data.decoders.vision import VisionDecoder

        return VisionDecoder(image_size, device, threads)
    try:
        from hpcgender.data.decoders.dali import DaliDecoder
    except (ImportError, OSError) as error:  # OSError: a library of it is missing
        raise UserError(
            f"NVIDIA DALI cannot be imported ({one_line(error)}): install it, or use --backend torchvision"
        ) from None
    return DaliDecoder(batch_size, image_size, device, augmentation, threads)
