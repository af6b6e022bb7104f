"""Pixels from encoded images and augmentation parameters: by NVIDIA DALI, or by Pillow where there is no DALI."""

from __future__ import annotations

import os
import sys
from functools import cache

import torch

from hpcgender.data.augmentation import Augmentation
from hpcgender.data.config import BACKEND, Backend
from hpcgender.data.decoders.decoder import Decoder
from hpcgender.distributed import Ranks
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

    The first in a process says so if it is Pillow for want of DALI. Raises UserError if DALI is asked for and cannot be
    imported, or is to decode on a GPU where there is none.
    """
    mixed = backend == "dali-mixed"
    if mixed and device.type != "cuda":
        raise UserError("--backend dali-mixed decodes on a GPU, and there is none: give --backend dali")
    if backend == "torchvision":
        if backend == BACKEND:
            note_missing()
        from hpcgender.data.decoders.vision import VisionDecoder

        return VisionDecoder(image_size, device, threads)
    try:
        from hpcgender.data.decoders.dali import DaliDecoder
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise UserError(
            f"NVIDIA DALI cannot be imported ({one_line(error)}): install it with bash jobs/install.sh, or use "
            "--backend torchvision"
        ) from None
    return DaliDecoder(batch_size, image_size, device, augmentation, threads, mixed=mixed)


@cache
def note_missing() -> None:
    """Says once that Pillow decodes because DALI is not installed."""
    print("NVIDIA DALI is not installed: Pillow decodes the images (--backend torchvision)", file=sys.stderr)


def decoder_threads(workers: int | None, ranks: Ranks) -> int:
    """How many threads decode for a rank: as many as asked for, else its share of the cores, or 1 if it computes there.

    The launcher notes a rank's cores in OMP_NUM_THREADS.
    """
    if workers is not None:
        return workers
    if ranks.device.type == "cpu":
        return 1
    noted = os.environ.get("OMP_NUM_THREADS", "")
    return int(noted) if noted.isdecimal() else max(1, len(os.sched_getaffinity(0)) // ranks.local_world_size)
