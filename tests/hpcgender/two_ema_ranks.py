"""Trains with an EMA on two ranks, and writes digests of each rank's: run by torch.distributed.run with a path."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from hpcgender.distributed import process_group
from hpcgender.train.ema import EMA
from tests.hpcgender.test_ema import network


def digest(values: Iterable[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in values)).hexdigest()


def train(rank: int) -> EMA:
    """The EMA after some steps of both ranks. DDP is destroyed on return, before the process group that it uses."""
    model = network()
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ema = EMA(model, 0.9)
    for step in range(6):
        images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2 * step + rank))
        optimizer.zero_grad()
        ddp(images).square().mean().backward()
        optimizer.step()
        ema.update()
    return ema


if __name__ == "__main__":
    with process_group() as ranks:
        ema = train(ranks.rank)
        held = ranks.gather((digest(ema.module.parameters()), digest(ema.module.buffers())))
        if ranks.is_first:
            Path(sys.argv[1]).write_text(json.dumps(held))
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    assert not [name for name in threads if "gloo" in name]  # or this process might abort at its exit
