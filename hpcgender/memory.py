"""Memory that runs out, of a GPU or of the machine, as one line for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from shard_tools.base.errors import UserError

FULL = re.compile(r"out of memory|can't allocate|not enough memory|ALLOC_FAILED", re.IGNORECASE)
"""What CUDA, cuDNN, cuBLAS, DALI and torch's allocator of the CPU write."""
BROKEN = re.compile(r"CUDA error|CUDNN|NCCL|gloo", re.IGNORECASE)
"""What CUDA and the libraries between ranks write, also where torch quotes it in an error of its own."""


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    full = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return full or (isinstance(error, RuntimeError) and bool(FULL.search(" ".join(str(error).split()))))


def of_the_machine(error: Exception) -> bool:
    """Whether memory, a GPU or the network between ranks failed, whatever was computed."""
    failed = isinstance(error, torch.AcceleratorError | torch.distributed.DistError)
    return failed or out_of_memory(error) or (isinstance(error, RuntimeError) and bool(BROKEN.search(str(error))))


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """A context that raises UserError with `remedy` where memory runs out, so that a job is not requeued in vain."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        where = "GPU memory" if "CUDA" in text or "CUDNN" in text or "CUBLAS" in text else "memory"
        tried = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
        raise UserError(f"out of {where}{f', {tried[1]} more were needed' if tried else ''}: {remedy}") from None
