"""Reading xz with a limit of memory, which lzma.LZMAFile has not: a file may ask for a dictionary of 4 GB."""

from __future__ import annotations

import io
import lzma
from typing import Any

MEMORY = 256 << 20
"""Bytes that a decoder may take; of what `xz -9` writes it takes 65 MiB."""
_PIECE = 1 << 16


def open_xz(file: Any) -> io.BufferedReader:
    """What is in an open file of xz, to read; LZMAError where it is damaged or takes more than MEMORY, or EOFError."""
    return io.BufferedReader(_Xz(file), 1 << 20)


class _Xz(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        self.file = file
        self.decoder = lzma.LZMADecompressor(memlimit=MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            follows = self.decoder.eof
            if follows:  # another stream may follow, behind zeros
                more = self.decoder.unused_data.lstrip(b"\0") or self.file.read(_PIECE)
                if not more:
                    return 0
                if not (more := more.lstrip(b"\0")):
                    continue
                self.decoder = lzma.LZMADecompressor(memlimit=MEMORY)
            else:
                more = self.file.read(_PIECE) if self.decoder.needs_input else b""
                if self.decoder.needs_input and not more:
                    raise EOFError("it ends before its end")
            try:
                data = self.decoder.decompress(more, len(buffer))
            except lzma.LZMAError:
                if follows:  # what is behind the end is no stream
                    return 0
                raise
        buffer[: len(data)] = data
        return len(data)
