"""One of three ranks makes a mistake that a person can correct, while the others wait for it: `DEVICE LOGS`.

Run by jobs.agent. On a CPU the end of a process group waits for the other ranks, as NCCL's does.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from hpcgender.distributed import process_group, redirect_output
from shard_tools.base.errors import UserError

if __name__ == "__main__":
    if sys.argv[1] == "cpu":
        dist.destroy_process_group = partial(time.sleep, 600)
    with process_group() as ranks:
        redirect_output(Path(sys.argv[2]), ranks.rank)
        ranks.sum(torch.ones(1, device=ranks.device)).item()
        if ranks.rank == 1:
            time.sleep(1)  # the others wait by then
            raise UserError("the labels of rank 1 are wrong: correct them")
        ranks.sum(torch.ones(1, device=ranks.device)).item()
