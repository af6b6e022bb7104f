"""Staging: shards are copied to the node's local disk once for all its processes, checked, and removed by the last.

    <stage_to>/hpcgender-<manifest>/<split>.lock                           locked, shared, by all who use the split
    <stage_to>/hpcgender-<manifest>/<split>/<split>-000000.tar             complete, as it is renamed when whole
    <stage_to>/hpcgender-<manifest>/<split>/.<split>-000000.tar.partial    locked by the process that copies it

The processes, of one job or of several, coordinate through these files alone. A lock (flock) is released when its
process ends, however it ends: a process that waited for a copy then makes it, and the next job removes leftovers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from shard_tools.base.errors import UserError
from shard_tools.base.storage import retried, unreadable
from shard_tools.base.text import byte_size, plural
from shard_tools.manifest import Manifest

RESERVE = 0.02
"""Fraction of the disk that staging leaves free."""
BLOCK = 1 << 22
"""Bytes that are read, hashed and written at a time."""


@contextmanager
def staged(
    manifest: Manifest, split: str, stage_to: Path, local_rank: int, local_world_size: int
) -> Iterator[list[Path]]:
    """The tars of a split, in order, on the node's local disk while the context is open.

    Every process of the node enters with the same arguments except its `local_rank`. They share the copying, and each
    waits until all shards are there. If the disk is too small or not writable, each gets the paths of the data set
    itself, and local rank 0 prints that on stderr. Raises UserError if a shard of the data set cannot be read or
    differs from its SHA-256 in the manifest.
    """
    stage = _Stage(manifest, split, stage_to)
    begin = time.monotonic()
    with ExitStack() as use:
        try:
            _sweep(stage_to, besides=stage.directory)
            use.callback(_sweep, stage_to)  # after the lock is released
            use.enter_context(stage.joined())
            missing = stage.missing()
            stage.fill(local_rank, local_world_size)
            paths = stage.paths
            report = stage.report(missing, time.monotonic() - begin)
        except OSError as error:
            use.close()
            paths = manifest.shard_paths(split)
            report = ""
            if local_rank == 0:
                size = byte_size(sum(shard.bytes for shard in stage.shards))
                print(
                    f"hpcgender: --stage-to {stage_to} cannot hold the {size} of {split} ({error.strerror}):"
                    f" reading from {manifest.root} instead",
                    file=sys.stderr,
                )
        if report and local_rank == 0:
            print(report)
        yield paths


class _Stage:
    """The staged files of a split on the node's local disk."""

    def __init__(self, manifest: Manifest, split: str, stage_to: Path) -> None:
        self.split = split
        self.shards = manifest.split(split).shards
        self.sources = manifest.shard_paths(split)
        self.directory = stage_to / f"hpcgender-{manifest.sha256[:16]}"
        self.paths = [self.directory / shard.file for shard in self.shards]
        self.partials = [path.with_name(f".{path.name}.partial") for path in self.paths]
        self.lock = -1
        self.has_space = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Holds the shared lock that keeps the split from being removed."""
        path = self.directory / f"{self.split}.lock"
        with suppress(BlockingIOError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            os.ftruncate(alone, 0)  # an error noted by processes that were killed
        with _locked(path, fcntl.LOCK_SH) as self.lock:
            yield

    def is_there(self, number: int) -> bool:
        try:
            return self.paths[number].stat().st_size == self.shards[number].bytes
        except FileNotFoundError:
            return False

    def missing(self) -> list[int]:
        return [number for number in range(len(self.shards)) if not self.is_there(number)]

    def fill(self, local_rank: int, local_world_size: int) -> None:
        """Copies this rank's shards, then any that no process is copying yet, and waits for the others."""
        own_first = sorted(range(len(self.shards)), key=lambda number: (number - local_rank) % local_world_size)
        for wait in (fcntl.LOCK_NB, 0):
            for number in own_first:
                if not self.is_there(number):
                    with suppress(BlockingIOError), _locked(self.partials[number], fcntl.LOCK_EX | wait) as file:
                        self.complete(number, file)

    def complete(self, number: int, file: int) -> None:
        """Copies a shard to its partial file, which is open and locked, and renames it, unless it is already there."""
        partial = self.partials[number]
        if self.is_there(number):
            partial.unlink()
            return
        try:
            self.check()
            self.copy(number, file)
            partial.rename(self.paths[number])
        except BaseException as error:
            # All others need this shard and wait for its lock: they must know of the failure before it is released.
            # The error number is stored as the length of the lock file, as the disk may be full.
            if isinstance(error, OSError):
                os.ftruncate(self.lock, error.errno or errno.EIO)
            partial.unlink(missing_ok=True)
            raise

    def check(self) -> None:
        """Raises OSError if another process failed, or if the missing shards do not fit on the disk."""
        if failure := os.fstat(self.lock).st_size:
            raise OSError(failure, os.strerror(failure))
        if self.has_space:
            return
        needed = 0
        for number in self.missing():
            with suppress(FileNotFoundError):
                needed -= self.partials[number].stat().st_blocks * 512
            needed += self.shards[number].bytes
        disk = shutil.disk_usage(self.directory)
        if needed + RESERVE * disk.total > disk.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.has_space = True

    def copy(self, number: int, file: int) -> None:
        source, shard = self.sources[number], self.shards[number]
        sha256 = hashlib.sha256()
        os.ftruncate(file, 0)
        with open(file, "wb", closefd=False) as partial:
            for block in _blocks(source):
                sha256.update(block)
                partial.write(block)
        if sha256.hexdigest() != shard.sha256:
            raise UserError(
                f"{source} was changed since it was packed, its SHA-256 is not the manifest's: restore or pack it again"
            )

    def report(self, missing: list[int], seconds: float) -> str:
        """A line on the shards that were copied, or are staged already."""
        where = self.directory / self.split
        numbers = missing or range(len(self.shards))
        size = sum(self.shards[number].bytes for number in numbers)
        what = f"{byte_size(size)} in {plural(len(numbers), 'shard')}"
        if not missing:
            return f"{self.split} is staged: {what} in {where}"  # by another, perhaps just now
        return f"staged {self.split}: {what} to {where} in {seconds:.0f} s, {byte_size(size / seconds)}/s"


@contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    """Opens a file, made if missing, and locks it by flock; BlockingIOError if `how` has LOCK_NB and it is locked."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # no access to faces for other users of the node
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the directory was removed since
            continue
        try:
            fcntl.flock(file, how)
            if _is_at(path, file):
                yield file
                return
        finally:
            os.close(file)


def _is_at(path: Path, file: int) -> bool:
    """Whether an open file still has that name: a previous holder of its lock may have renamed or removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _sweep(stage_to: Path, besides: Path | None = None) -> None:
    """Removes every split that no process uses, of all data sets."""
    for directory in stage_to.glob(f"hpcgender-{'[0-9a-f]' * 16}"):
        if directory != besides:
            with suppress(OSError):  # splits are in use, or another process or user is removing it
                for lock in list(directory.glob("*.lock")):
                    _remove_unused(lock)
                directory.rmdir()


def _remove_unused(lock: Path) -> None:
    """Removes a split and its lock file, unless it is locked."""
    with suppress(BlockingIOError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
        split = lock.with_suffix("")
        if split.exists():
            shutil.rmtree(split)
        lock.unlink()


def _blocks(source: Path) -> Iterator[bytes]:
    """The content of a file in blocks; UserError or StorageError if it cannot be read."""
    opened: list[FileIO] = []
    begin = 0

    def read() -> bytes:
        if not opened:
            opened.append(FileIO(source))
            if begin:
                opened[0].seek(begin)
        try:
            return opened[0].read(BLOCK)
        except OSError:
            opened.pop().close()  # to be opened again
            raise

    try:
        while block := retried(read, source):
            yield block
            begin += len(block)
    except OSError as error:
        raise unreadable(error, source) from None
    finally:
        if opened:
            opened[0].close()
