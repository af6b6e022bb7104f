"""One of several ranks makes a mistake that a person can correct, while the others wait for it: `DEVICE LOGS [deaf]`.

Run by jobs.agent. On a CPU the end of a process group waits for the other ranks, as NCCL's does. `deaf` ranks wait in
C, where their handler of SIGTERM does not run. When it happened is in LOGS/failed, in seconds of Unix time.
"""

from __future__ import annotations

import ctypes
import signal
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
            Path(sys.argv[2], "failed").write_text(f"{time.time()}")
            raise UserError("the labels of rank 1 are wrong: correct them")
        if sys.argv[3:]:
            signal.signal(signal.SIGTERM, lambda *_: print("TERM was heard", flush=True))
            mutex = ctypes.create_string_buffer(64)
            for _ in range(2):  # no one unlocks it
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
        ranks.sum(torch.ones(1, device=ranks.device)).item()
