"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO, TextIO

from shard_tools.base.errors import UserError
from shard_tools.base.lock import locked
from shard_tools.base.parsing import load_json
from shard_tools.base.storage import unwritable, writing

SYNCFS = ctypes.CDLL(None, use_errno=True).syncfs
"""syncfs(2), which os does not have."""
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
"""What file systems say that cannot sync a directory: CIFS, FUSE and others."""
TAIL_BYTES = 65_536
"""More than a record of a run's metrics, and many lines of a log."""


def write_whole(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Writes beside `path`, then renames: it is the old file or the new one, even if two processes write it."""
    with whole_file(path, synced=synced) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` at the end and is removed if anything goes wrong.

    It outlives a power cut from then on; where it is one of very many, `synced` may be left to `sync_files`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with io.BufferedWriter(NamedFile(partial, path)) as file:
            yield file
            if synced:
                sync(file, path)
        partial.replace(path)
        if synced:
            sync_directory(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync(file: IO[Any], path: Path) -> None:
    """Has the disk keep what was written into a file, before anything that relies on it; errors name `path`."""
    with writing(path):
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Has the disk keep which files a directory has, before anything that relies on it.

    Does nothing where the file system cannot, or the directory may be written and not read.
    """
    try:
        number = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return
    try:
        with writing(directory):
            os.fsync(number)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(number)


def sync_files(directory: Path) -> None:
    """`sync` of all files of the directory's file system at once: of very many each one would take long.

    It waits for what others have written there, too. Before Linux 5.8 it does not tell of errors.
    """
    number = os.open(directory, os.O_RDONLY)
    try:
        if SYNCFS(number):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
    finally:
        os.close(number)


@contextmanager
def whole_text(path: Path) -> Iterator[TextIO]:
    """A text file to write, as `whole_file` does; in UTF-8, with line ends as they are given.

    What no UTF-8 can have, as a file's name may, is an escape such as \\udcff.
    """
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.detach()  # which flushes it


class NamedFile(io.FileIO):
    """A file to write whose errors name it, as `name`, also those of `write`, to which the system gives no name."""

    def __init__(self, path: Path, name: Path | None = None) -> None:
        super().__init__(path, "w")
        self.shown = name or path

    def write(self, data: Any, /) -> int:
        with writing(self.shown):
            return super().write(data)


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The last bytes of a text file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole object in a file of JSON lines, of which only the end is read; None if there is none."""
    for line in reversed(tail(path).splitlines()):
        try:
            record = load_json(line)
        except ValueError:  # cut short by a kill, or by where the tail begins
            continue
        if isinstance(record, dict):
            return record
    return None


def write_file(path: Path, content: bytes, *, synced: bool = True) -> None:
    """`write_whole`; UserError if the disk or its permissions refuse, StorageError if it fails."""
    try:
        write_whole(path, content, synced=synced)
    except OSError as error:
        raise unwritable(error, path) from None


def check_file(path: Path, suffix: str = "") -> None:
    """Raises UserError unless a file with that suffix, or with any, can be written there."""
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file")
    if suffix and path.suffix.lower() != suffix:
        raise UserError(f"{path} does not end in {suffix}: name it {path.with_suffix(suffix).name}")
    if not path.parent.is_dir():
        raise UserError(f"no directory {path.parent} to write {path.name} into: make it first")
    check_writable(path.parent, f"name another directory for {path.name}")


def check_writable(directory: Path, advice: str) -> None:
    """Raises UserError with the advice if no file can be made in a directory: one is, and leaves nothing."""
    try:
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"cannot write into {directory} ({error.strerror}): {advice}") from None


def check_directory(out: Path, option: str = "--out") -> None:
    """Raises UserError, with the option that names it, unless files can be written into `out`, which may be missing."""
    there = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UserError(f"{there} is no directory: give another one as {option}")
    check_writable(there, f"give another directory as {option}")


def check_empty(out: Path, besides: Collection[str] = ()) -> None:
    """Raises UserError unless `out` does not exist or is a directory with nothing in it besides some names."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a directory as --out")
    if out.exists() and any(path.name not in besides for path in out.iterdir()):
        raise UserError(f"{out} is not empty: remove it or give another --out")


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """A directory beside `out` to write into, which becomes `out` at the end and is removed if anything goes wrong.

    What a killed process left there is removed by the next one. Raises UserError if `out` holds something, another
    process is writing it, or where the disk or its permissions fail.
    """
    check_empty(out)
    target = out.absolute()
    partial = target.with_name(f".{target.name}.partial")
    lock = partial / "lock"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with locked(lock, out, "wait until it has ended, or give another --out"):
            try:
                check_empty(out)
                for left in partial.iterdir():
                    if left != lock:
                        left.unlink()
                yield partial
                lock.unlink()
                sync_files(partial)
                partial.rename(target)
                sync_directory(target.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise unwritable(error, out, "nothing was left there") from None
