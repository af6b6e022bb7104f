"""Pixels from encoded images and augmentation parameters: by NVIDIA DALI, or by Pillow where there is no DALI."""

from __future__ import annotations

import torch

from hpcgender.data.augmentation import Augmentation
from hpcgender.data.config import Backend
from hpcgender.data.decoders.decoder import Decoder
from shard_tools.base.errors import UserError, one_line


def create_decoder(
    backend: Backend,
    batch_size: int,
    image_size: int,
    device: torch.device,
    augmentation: Augmentation | None,
    threads: int,
) -> Decoder:
    """The decoder of a backend, with `threads` decoding threads; `augmentation` is None for evaluation.

    Raises UserError if DALI is asked for and cannot be imported.
    """
    if backend == "torchvision":
        from hpcgender.data.decoders.vision import VisionDecoder

        return VisionDecoder(image_size, device, threads)
    try:
        from hpcgender.data.decoders.dali import DaliDecoder
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise UserError(
            f"NVIDIA DALI cannot be imported ({one_line(error)}): install it, or use --backend torchvision"
        ) from None
    return DaliDecoder(batch_size, image_size, device, augmentation, threads)
