"""The process group: this process's rank, from torchrun's environment variables, and collective operations."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Its functions bind the default process group of the moment of the first import, which DDP does: then gloo's threads
# outlive the group, and the process may abort at exit. Imported here, there is no group yet.
import torch.distributed.nn.functional

from shard_tools.base.errors import UserError

TIMEOUT = timedelta(minutes=10)
"""Default time that a rank waits for the others before it fails."""


@dataclass(frozen=True)
class Ranks:
    """This process: `rank` of `world_size`, and the device that it computes on."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    """This process among the `local_world_size` of its node."""
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """All-reduces a tensor to its sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self, timeout: timedelta) -> None:
        """Waits for all ranks, with a timeout of its own that may be longer than the process group's."""
        if self.world_size > 1:
            group = dist.new_group(backend="gloo", timeout=timeout)
            dist.barrier(group)  # type: ignore[arg-type]  # waits, or the first to leave would close connections that others still open
            dist.destroy_process_group(group)

    def broadcast(self, value: Any) -> Any:
        """Returns rank 0's value on every rank."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value, by rank, on rank 0, and an empty list on the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, values)
        return values or []


def select_device(local_rank: int = 0) -> torch.device:
    """The device of a process of this node, also of one that is no rank: a GPU of its own, or else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Initialises the process group and destroys it at the end; a single process needs neither it nor torchrun."""
    variables = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    missing = [name for name, value in variables.items() if value is None]
    if 0 < len(missing) < len(variables):
        raise UserError(f"{', '.join(missing)} not set: start several processes with python -m hpcgender.launch")
    rank, world_size, local_rank, local_world_size = (
        int(value or default) for value, default in zip(variables.values(), "0101", strict=True)
    )
    device = select_device(local_rank)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    cuda = device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout, device_id=device if cuda else None)
    try:
        yield Ranks(rank, world_size, device, local_rank, local_world_size)
    finally:
        dist.destroy_process_group()


def redirect_output(directory: Path, rank: int) -> None:
    """Redirects stdout and stderr of every rank but the first to `rank-<n>.log` in `directory`."""
    if rank == 0:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"rank-{rank}.log").open("a") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
