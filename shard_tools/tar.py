"""Plain ustar archives, the only kind of tar in a data set: members written fast, and read strictly."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""Two empty blocks end an archive."""
MAX_NAME = 100
"""Bytes of a member's name, without ustar's prefix field."""
MAX_LABEL_BYTES = 1 << 16
"""Of the JSON beside an image: more than labels take."""

_SIZE = re.compile(rb"[0-7]{11}")
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "an extended header",
    tarfile.GNUTYPE_LONGNAME: "an extended header",
    tarfile.GNUTYPE_LONGLINK: "an extended header",
}

_AFTER_SIZE = b"00000000000\0"  # modification time
_AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2
_FIXED_SUM = sum(_BEFORE_SIZE) + sum(_AFTER_SIZE) + sum(_AFTER_SUM) + 8 * ord(" ")


_ZEROS = bytes(BLOCK)

Size = TypeVar("Size", int, npt.NDArray[np.int64], npt.NDArray[np.int32])


class TarError(Exception):
    """What is wrong with an archive, and at which byte."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int
    """Of its content, bytes."""
    size: int
    """Of its content, bytes."""


def header(name: bytes, size: int) -> bytes:
    """The header block of a regular file with mode 644 and no time or owner: the bytes that tarfile would write.

    `name` has at most `MAX_NAME` bytes of ASCII, `size` is below 8 GiB.
    """
    digits = b"%011o\0" % size
    total = _FIXED_SUM + sum(name) + sum(digits)
    return b"%b%b%b%b%06o\0 %b" % (name.ljust(100, b"\0"), _BEFORE_SIZE, digits, _AFTER_SIZE, total, _AFTER_SUM)


def padding(size: int) -> bytes:
    """What fills the last block of a content of `size` bytes."""
    return _ZEROS[: -size % BLOCK]


def blocks(size: Size) -> Size:
    """Number of blocks of a member whose content has `size` bytes, its header included; also of an array of sizes."""
    return 1 + -(-size // BLOCK)


def members(file: BinaryIO, position: int = 0) -> Iterator[Member]:
    """The members of an archive from the header at byte `position`, in order; `file` may be moved between members.

    Raises TarError at the first thing that `header` does not write: a wrong checksum, a link or any other special
    file, a name that is absolute or leads outside with `..`, an extended header, a missing end or bytes after it.
    """
    size = file.seek(0, 2)
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError(f"it ends at byte {position + len(block)} without an end mark")
        if not any(block):
            file.seek(position)
            rest = file.read(len(END) + 1)
            if rest != END or size != position + len(END):
                raise TarError(f"it has a broken end mark, or bytes after it, at byte {position}")
            return
        member = _member(block, position)
        position = member.offset + BLOCK * -(-member.size // BLOCK)
        if position > size:
            raise TarError(f"{member.name} at byte {member.offset} is cut off")
        yield member


def _member(block: bytes, position: int) -> Member:
    """The member whose header is `block`, at byte `position`."""
    name, digits = block[:MAX_NAME].rstrip(b"\0"), block[124:135]
    # Whatever is wrong, special or merely other than `header` writes it shows as another block. A sign or a space
    # would pass for a number, and a size below zero would never come to an end.
    size = int(digits, 8) if _SIZE.fullmatch(digits) else -1
    if size < 0 or b"\0" in name or not name.isascii() or header(name, size) != block:
        raise TarError(_fault(block, position))
    text = name.decode()
    if text.startswith("/") or ".." in text.split("/") or not text:
        raise TarError(f"{text!r} at byte {position} is a name that leads outside")
    return Member(text, position + BLOCK, size)


def _fault(block: bytes, position: int) -> str:
    """What is wrong with a header that is not of a plain file."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except tarfile.HeaderError:
        return f"it has a damaged header at byte {position}"
    if info.isreg():
        return f"{info.name!r} at byte {position} has a header that shard-tools does not write"
    return f"{info.name!r} at byte {position} is {_KINDS.get(info.type, 'a special file')}, not a plain file"
