"""Locks a run directory, so that two jobs cannot write it, e.g. if one was submitted twice."""

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
"""Errors of file systems without locks, such as Lustre mounted without flock."""
PATIENCE = 120.0
"""Seconds to wait for the lock: that of a lost node may be held for a while after it."""


@contextmanager
def only_training(run_dir: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the lock of a run directory, which is made if missing; UserError if another process holds it for longer.

    The lock (flock) is released when its process ends, however it ends. The text in `train.lock` is only for people.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "train.lock").open("a+") as file:
        try:
            acquire(file, run_dir, patience)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"hpcgender: {run_dir} is on a file system without locks: do not train it in two jobs at once",
                file=sys.stderr,
            )
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID")
        file.write(f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}\n")
        file.flush()
        yield


def acquire(file: TextIO, run_dir: Path, patience: float) -> None:
    """Locks the file, waiting for another holder; UserError after `patience` seconds."""
    end = time.monotonic() + patience
    waiting = False
    while not try_lock(file):
        file.seek(0)
        other = file.read().strip() or "another process"
        if time.monotonic() >= end:
            raise UserError(f"{run_dir} is locked by {other}: cancel that, or give another --name")
        if not waiting:
            print(f"{run_dir} is locked by {other}: waiting up to {patience:.0f} s", flush=True)
            waiting = True
        time.sleep(0.5)


def try_lock(file: TextIO) -> bool:
    """Locks the file and returns True, or returns False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
