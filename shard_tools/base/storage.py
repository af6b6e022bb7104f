"""Reading from storage that may fail for a moment, and whose fault it is that a file cannot be read or written."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from shard_tools.base.errors import StorageError, UserError, one_line

Result = TypeVar("Result")

PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a failed read is tried again."""
PASSING = (
    errno.ESTALE,
    errno.EIO,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.EREMOTEIO,
    errno.ECOMM,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)
"""What network storage answers during a failover, and a disk that breaks: the machine's fault, not the user's."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk and its permissions can refuse: the user's to correct, not a bug."""
MANY_FILES = 65_536
"""Open files beyond which no process needs to go."""
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


def retried(read: Callable[[], Result], path: Path | str) -> Result:
    """The result of `read`, which opens `path` anew each time; tried again, after a pause, while the storage fails.

    Raises StorageError if it still fails; other errors of the system at once.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(pause)
    try:
        return read()
    except OSError as error:
        if error.errno not in PASSING:
            raise
        raise storage_failed(error, error.filename or path) from None


def storage_failed(error: OSError, path: Path | str) -> StorageError:
    """The error for storage that fails, though nothing is wrong with the file `path` itself as far as is known."""
    return StorageError(
        f"cannot read or write {path}: {error.strerror or one_line(error)}: its storage or the network to it fails; "
        "when that is repaired, the same command works"
    )


def unreadable(error: OSError, path: Path | str, missing: str = "restore or pack it again") -> Exception:
    """The error for a file that cannot be read, with a remedy that fits; `missing` is that of a missing file."""
    what = f"cannot read {path}: {error.strerror or one_line(error)}"
    if error.errno in PASSING:
        return storage_failed(error, path)
    if error.errno in TOO_MANY_OPEN:
        return too_many_open(error)
    if error.errno in REFUSED:
        return UserError(f"{what}; correct its permissions, or renew your ticket or token if the storage needs one")
    return UserError(f"{what}; {missing}")


def unwritable(error: OSError, path: Path | str, then: str = "") -> Exception:
    """The error for a file that cannot be written; `then` is what to do after that is fixed."""
    if error.errno in PASSING:
        return storage_failed(error, path)
    if error.errno in TOO_MANY_OPEN:
        return too_many_open(error)
    return UserError(f"cannot write {path}: {error.strerror or one_line(error)}{then and f'; {then}'}")


def of_the_system(error: OSError) -> UserError | StorageError | None:
    """The error for people where the system refuses what was asked of it; None if that may be a bug.

    A file that the system does not name is not guessed at.
    """
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in PASSING:
        return storage_failed(error, error.filename or "a file")
    if error.errno in TOO_MANY_OPEN:
        return too_many_open(error)
    if error.errno not in REFUSED:
        return None
    if not where:
        return UserError(f"{error.strerror}, in writing a file: see df -h of the results' disk and of {gettempdir()}")
    return UserError(f"{where}{error.strerror}")


def pread(file: int, size: int, begin: int) -> bytes:
    """The `size` bytes of an open file from byte `begin` on; fewer only where the file ends before."""
    data = os.pread(file, size, begin)
    while 0 < len(data) < size and (more := os.pread(file, size - len(data), begin + len(data))):
        data += more
    return data


def too_many_open(error: OSError) -> UserError:
    """The error where a process may not open more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UserError(
        f"cannot open {error.filename or 'a file'}: {error.strerror}, of {soft} that this process may open (at most "
        f"{hard}): raise the limit, as in ulimit -n 65536"
    )


def open_files_limit() -> int:
    """How many files this process may open, after its soft limit was raised towards the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Gives an error of the system its file: those of `write`, as on a full disk, have none."""
    try:
        yield
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
