"""Samples of a WebDataset tar from any URL that webdataset opens, read once; failures and damage are noticed.

tarfile takes a damaged header, or the end of a truncated file, for the end of the tar, and webdataset ignores whether
the command behind a URL succeeded. Here a URL that cannot be read is a `UserError`, and damage of the tar is a sample
with a `problem`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import re
import signal
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from shard_tools import tar
from shard_tools.base.errors import StorageError, UserError, one_line
from shard_tools.base.storage import retried
from shard_tools.images import MAX_BYTES
from shard_tools.sources.xz import open_xz
from shard_tools.without_torch import without_torch

PIECE = 1 << 20
MAX_HEADER_BYTES = 1 << 20
"""Of a member with what describes it in others before: its long name, its own attributes, the map of a sparse file."""
PATIENCE = 100
"""Reads past the end of a tar; a reader that has seen it asks once or twice more."""
DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": open_xz,
}
"""By the first bytes of the file."""
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What they raise for a damaged or truncated file."""
OF_THE_TAR = re.compile(r"__[^/]*__($|/)")
"""Names by which webdataset keeps what is no sample, but of the tar as a whole."""
WITHOUT_CONTENT = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE}
)
"""Types of members whose header is followed by that of the next member, whatever their size."""


class Sample(NamedTuple):
    """Neighbouring files of a tar that share a key."""

    key: str
    """Their name up to the first dot; of a file that is left out, its name; empty for the tar as a whole."""
    members: dict[str, bytes]
    """Their contents by their suffix: what follows that dot, in lower case."""
    problem: str = ""
    """Why a file is left out, or what is wrong with the tar."""


def read_samples(url: str, most: Mapping[str, int]) -> Iterator[Sample]:
    """All samples of a tar, then what is wrong with the tar as a whole. One sample is held at a time.

    `most` has the bytes that a file may have, by its suffix; files with others are not read, and empty here. A file
    that has more, or with which its sample has more than MAX_BYTES, is left out. By webdataset's rules hidden
    files and files without a suffix belong to no sample. Raises UserError if the URL cannot be opened or read to its
    end.
    """
    with without_torch():
        from webdataset import tariterators

    twice: list[str] = []
    last = ""
    suffixes: set[str] = set()

    def key_and_suffix(name: str) -> tuple[str | None, str | None]:
        """Those of a file's name; None if it belongs to no sample, or its sample has one with this suffix."""
        nonlocal last
        key, suffix = tariterators.base_plus_ext(name)
        if key is None:
            return None, None
        if key != last:
            last = key
            suffixes.clear()
        if suffix.lower() in suffixes:
            twice.append(name)
            return None, None
        suffixes.add(suffix.lower())
        return key, suffix

    stream = TarStream(url)
    try:
        large: list[tuple[str, str]] = []
        empty = True
        for found in tariterators.group_by_keys(
            _files(stream, large, most, tariterators.base_plus_ext), keys=key_and_suffix
        ):
            empty = False
            key = found.pop("__key__")
            del found["__url__"]
            yield Sample(key, found)
            while twice:
                yield Sample(twice.pop(0), {}, "its sample has a file with this suffix already")
        for name, problem in large:
            empty = False
            yield Sample(name, {}, problem)
        problem = stream.finish() or ("the tar has no samples" if empty else "")
        if problem:
            yield Sample("", {}, problem)
    finally:
        stream.transport.close()


def _files(
    stream: TarStream,
    large: list[tuple[str, str]],
    most: Mapping[str, int],
    key_and_suffix: Callable[[str], tuple[str | None, str | None]],
) -> Iterator[dict[str, Any]]:
    """The files of a tar, as webdataset groups them; those that are too large to be held are added to `large`.

    A sparse file is as large as it says, whatever it takes in the tar. Of a sample that is too large one file is named.
    """
    last = ""
    held = 0  # bytes of that sample, with its names
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]  # it has a method read
            for member in archive:
                stream.limit = archive.offset + MAX_HEADER_BYTES
                archive.members = []  # or they would all be kept
                key, suffix = key_and_suffix(member.name)
                if key is None or not member.isreg() or OF_THE_TAR.match(member.name):
                    continue
                if key != last:
                    last, held = key, 0
                limit = most.get((suffix or "").lower(), 0)
                size = member.size if limit else 0
                if size > limit:
                    large.append((member.name, f"it has more than {limit} bytes"))
                    continue
                before, held = held, held + len(member.name) + size
                if held > MAX_BYTES + MAX_HEADER_BYTES:
                    if before <= MAX_BYTES + MAX_HEADER_BYTES:
                        large.append((member.name, f"its sample has more than {MAX_BYTES} bytes"))
                    continue
                content = archive.extractfile(member) if size else None
                yield {
                    "fname": member.name,
                    "data": content.read() if content else b"",
                    "__url__": stream.transport.url,
                }
    except Exception as error:  # tarfile's own, and those of decompressors and of damaged headers
        stream.note(error)


class Transport:
    """The bytes of a URL. A failure ends them and is kept, as the reader of a tar would take it for damage."""

    def __init__(self, url: str) -> None:
        """Opens the URL; raises UserError if that fails, StorageError if the storage does."""
        with without_torch():
            from webdataset import gopen

        self.url = url
        self.failure: Exception | None = None
        self.head = b""
        try:
            self.file = retried(partial(gopen, url), url)
        except StorageError:
            raise
        except Exception as error:  # each scheme raises its own
            raise self._unreadable(getattr(error, "strerror", None) or one_line(error)) from None
        if isinstance(self.file, io.BufferedReader):
            self.file = SteadyFile(self.file)
        self.head = self.read(max(map(len, DECOMPRESSORS)))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        if self.head:
            first, self.head = self.head[:size], self.head[size:]
            return first
        try:
            piece: bytes = self.file.read(size)
        except StorageError as error:
            self.failure = error
            return b""
        except OSError as error:
            self._fail(error)
            return b""
        return piece

    def close(self) -> None:
        """Closes the file, or ends the command and waits for it."""
        try:
            self.file.close()
        except OSError as error:
            self._fail(error)

    def check(self) -> None:
        """Raises UserError if the URL could not be read, StorageError if that is the storage's fault."""
        if self.failure:
            raise self.failure

    def _unreadable(self, reason: str) -> UserError:
        return UserError(f"cannot read {self.url}: {reason}; after that is fixed, the same command resumes")

    def _fail(self, error: OSError) -> None:
        status = getattr(self.file, "status", None)
        command = "its command" if self.url.startswith("pipe:") else "the download"
        reason = f"{command} {how_it_failed(status)}" if status else error.strerror or one_line(error)
        self.failure = self.failure or self._unreadable(reason)


def how_it_failed(status: int) -> str:
    """How a command ended, by its exit status, in the words of `hpcgender jobs`.

    If a signal has killed it, that is minus its number, or by a shell 128 more.
    """
    try:
        return f"was killed by {signal.Signals(-status if status < 0 else status - 128).name}"
    except ValueError:
        return f"failed with exit code {status}"


class SteadyFile:
    """A local file that is opened again, at the byte that was reached, where its storage fails for a moment.

    What a command or a download gives begins anew, so it is not tried again.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        self.file: io.BufferedReader | None = file
        self.path = file.name
        self.at = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end; raises StorageError if the storage goes on failing."""
        return retried(partial(self._read, size), self.path)

    def close(self) -> None:
        if self.file:
            self.file.close()

    def _read(self, size: int) -> bytes:
        if self.file is None:
            self.file = open(self.path, "rb")  # noqa: PTH123, SIM115  # its name may be bytes
            self.file.seek(self.at)
        try:
            piece = self.file.read(size)
        except OSError:
            self.file.close()
            self.file = None
            raise
        self.at += len(piece)
        return piece


class TarStream:
    """A tar as tarfile reads it from a URL, decompressed, whose headers are followed to see that it is whole."""

    def __init__(self, url: str) -> None:
        """Opens the URL; raises UserError if that fails."""
        self.transport = Transport(url)
        head = self.transport.head
        decompressor = next((made for magic, made in DECOMPRESSORS.items() if head.startswith(magic)), None)
        self.content: Any = decompressor(self.transport) if decompressor else self.transport
        self.error = ""
        """Where tarfile gave up."""
        self.problem = ""
        """Where the headers are not those of a whole tar."""
        self.ended = False
        self.past_end = 0  # reads since then
        self.limit: float = MAX_HEADER_BYTES
        """Byte of the tar beyond which nothing is read for the next member's headers."""
        self.passed = 0  # bytes that have been read
        self.offset = 0  # of the next header in the tar
        self.skip = 0  # bytes before it that have not come yet
        self.pending = b""  # its bytes that have

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the tar, none at the end; raises one of DAMAGE where it is not rightly compressed.

        And EOFError where more is asked for again and again: tarfile would skip any size that a header claims; or
        beyond `limit`: tarfile would hold a name of any length.
        """
        if self.passed > self.limit:
            raise EOFError(f"the headers of a file have more than {MAX_HEADER_BYTES} bytes")
        piece: bytes = self.content.read(size)
        self.passed += len(piece)
        self.past_end = 0 if piece else self.past_end + 1
        if self.past_end > PATIENCE:
            raise EOFError("unexpected end of data")
        self._follow(piece)
        return piece

    def note(self, error: Exception) -> None:
        """Notes why the tar cannot be read further."""
        self.error = self.error or one_line(error)

    def finish(self) -> str:
        """Reads the rest, and returns what is wrong with the tar; empty if it is whole.

        Raises UserError if the URL could not be read to its end.
        """
        self.limit = math.inf
        try:
            while self.read(PIECE):
                pass
        except DAMAGE as error:
            self.note(error)
        self.transport.close()
        self.transport.check()
        if not self.ended and not self.problem:
            reason = self.error or "it has no end-of-archive block"
            return f"the tar is truncated or damaged, samples may be missing: {reason}"
        return self.problem or (f"the tar is truncated or damaged: {self.error}" if self.error else "")

    def _follow(self, piece: bytes) -> None:
        """Goes on from header to header."""
        if self.problem:
            return
        piece = self.pending + piece
        at = 0
        while not self.problem:
            passed = min(self.skip, len(piece) - at)
            self.skip -= passed
            at += passed
            if self.skip or len(piece) - at < tar.BLOCK:
                break
            self._header(piece[at : at + tar.BLOCK])
            at += tar.BLOCK
        self.pending = piece[at:]

    def _header(self, block: bytes) -> None:
        if block.count(0) == tar.BLOCK:
            self.ended = True
        elif self.ended:
            self.problem = (
                "the tar goes on after its end: tars that are joined with cat are read to the end of the first"
            )
        else:
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                self.problem = f"the tar is damaged: there is no header at byte {self.offset}"
                return
            size = 0 if member.type in WITHOUT_CONTENT else max(member.size, 0)
            self.offset += tar.blocks(size) * tar.BLOCK
            self.skip = (tar.blocks(size) - 1) * tar.BLOCK
