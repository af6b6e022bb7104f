"""One training a run directory: two that write the same one, as a job that was submitted twice, would spoil both."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from shard_tools.base.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""How file systems refuse that have none, such as Lustre where it is mounted without them."""


PATIENCE = 120.0
"""Seconds that a training waits for the one before it: the lock of a node that went down may outlive it."""


@contextmanager
def only_training(run_dir: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the lock of a run directory, which is made if need be; UserError if another process has it for so long.

    The lock (flock) ends with its process, however that ends. What is in `train.lock` is only for people.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "train.lock").open("a+") as file:
        try:
            take(file, run_dir, patience)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"hpcgender: {run_dir} is on a disk without locks: train it only once at a time", file=sys.stderr)
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID")
        file.write(f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}\n")
        file.flush()
        yield


def take(file: TextIO, run_dir: Path, patience: float) -> None:
    """Locks the file, waiting for who has it; UserError if that takes more than `patience` seconds."""
    end = time.monotonic() + patience
    told = False
    while not free(file):
        file.seek(0)
        other = file.read().strip() or "another process"
        if time.monotonic() >= end:
            raise UserError(f"{run_dir} is trained by {other}: end that, or give another --name")
        if not told:
            print(f"{run_dir} is trained by {other}: waiting {patience:.0f} s for its end", flush=True)
            told = True
        time.sleep(0.5)


def free(file: TextIO) -> bool:
    """Locks the file, unless another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
