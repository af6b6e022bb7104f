"""Locks what one process alone may write, e.g. a run directory whose job was submitted twice."""

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
def locked(path: Path, what: Path, advice: str, *, shared: bool = False, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the lock of the file `path`, made if missing in its directory, which exists; `what` it locks is for people.

    The lock (flock) is released when its process ends, however it ends. The text in the file is only for people. Any
    number of processes may hold a `shared` lock, while none holds the other kind. Whatever was checked before must be
    checked again under the lock. Raises UserError with `advice` if another process holds the lock for longer than
    `patience` seconds, and if the file was removed meanwhile.
    """
    with path.open("a+") as file:
        try:
            _acquire(file, what, advice, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, patience)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"{what} is on a file system without locks: do not write it in two jobs at once", file=sys.stderr)
        try:
            same = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise UserError(f"{what} was finished or removed by another process: look at it, then run this again")
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID")
        file.write(f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}\n")
        file.flush()
        yield


def _acquire(file: TextIO, what: Path, advice: str, kind: int, patience: float) -> None:
    """Locks the file, waiting for another holder; UserError after `patience` seconds."""
    end = time.monotonic() + patience
    waiting = False
    while not _try_lock(file, kind):
        file.seek(0)
        other = file.read().strip() or "another process"
        if time.monotonic() >= end:
            raise UserError(f"{what} is locked by {other}: {advice}")
        if not waiting:
            print(f"{what} is locked by {other}: waiting up to {patience:.0f} s", flush=True)
            waiting = True
        time.sleep(0.5)


def _try_lock(file: TextIO, kind: int) -> bool:
    """Locks the file and returns True, or returns False if another process holds the lock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
