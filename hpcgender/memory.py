"""Memory that runs out, of a GPU or of the machine, as one line for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from shard_tools.base.errors import UserError

FULL = re.compile(r"out of memory|can't allocate|not enough memory|ALLOC_FAILED", re.IGNORECASE)
"""What CUDA, cuDNN, cuBLAS, DALI and torch's allocator of the CPU write."""


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """A context that raises UserError with `remedy` where memory runs out, so that a job is not requeued in vain."""
    try:
        yield
    except MemoryError:
        raise UserError(f"out of memory: {remedy}") from None
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not isinstance(error, torch.OutOfMemoryError) and not FULL.search(text):
            raise
        where = "GPU memory" if "CUDA" in text or "CUDNN" in text or "CUBLAS" in text else "memory"
        tried = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
        raise UserError(f"out of {where}{f', {tried[1]} more were needed' if tried else ''}: {remedy}") from None
