"""Text files as programs save them: UTF-8, or UTF-16 and UTF-32 with a byte-order mark; any line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TextIO

from shard_tools.base.errors import UserError
from shard_tools.base.other_files import other_kind
from shard_tools.base.storage import retried

HEAD = 4096
"""First bytes of a file, which show what it is."""
ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_UTF8 = re.compile("[\udc80-\udcff]")
"""What Python decodes bytes to that are no UTF-8."""
BINARY = {
    b"pk\x03\x04": "is a zip archive or a workbook of Excel: save it as CSV",
    b"\xd0\xcf\x11\xe0": "is a workbook of Excel: save it as CSV",
}
"""Files that are given in place of a text, by their first bytes in lower case."""


def encoding_of(raw: bytes) -> str:
    """The encoding of a text by its first bytes; a mark of UTF-8 is not part of the text."""
    return next((name for mark, name in ENCODINGS.items() if raw.startswith(mark)), "utf-8-sig")


def open_text(path: Path, errors: str = "strict", newline: str | None = None) -> TextIO:
    """A text file, open for reading.

    Raises OSError, or UserError for what is known to be no text; reading raises UnicodeError, for `not_text`.
    """
    check_no_pipe(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    encoding = encoding_of(head)
    if what := other_kind(head, BINARY):
        raise UserError(f"{path} {what}")
    if b"\0" in head and encoding == "utf-8-sig":
        line = head[: head.index(0)].count(b"\n") + 1
        raise UserError(f"{path} is no text: line {line} has a NUL byte; save it as UTF-8")
    return path.open(encoding=encoding, errors=errors, newline=newline)


def check_no_pipe(path: Path) -> None:
    """Raises UserError for a pipe, as <(zcat x.csv.gz) of a shell is: what was read of it once would be lost."""
    if path.is_fifo():
        raise UserError(f"{path} is a pipe, which cannot be read twice: write it to a file first")


def decode_text(raw: bytes) -> str:
    """A text from its bytes; raises UnicodeError."""
    return raw.decode(encoding_of(raw))


def read_text(path: Path, name: str = "") -> str:
    """All of a text file with line ends \\n; errors call it `name`. UserError if it cannot be read or is no text."""

    def read() -> str:
        with open_text(path) as file:
            return file.read()

    try:
        return retried(read, path)
    except OSError as error:
        raise UserError(f"cannot read {name or path}: {error.strerror}") from None
    except UnicodeError:
        raise not_text(path, name) from None


def not_text(path: Path, name: str = "") -> UserError:
    """The error for a file whose reading raised UnicodeError, with the first line that is not in its encoding."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(HEAD)).removesuffix("-sig")
        file.seek(0)
        where = ""
        if encoding == "utf-8":
            for number, line in enumerate(file, 1):
                odd = NO_UTF8.search(line.decode(errors="surrogateescape"))
                if odd:
                    where = f"line {number} has the byte 0x{ord(odd[0]) - 0xDC00:02x}, in Latin-1 {_shown(line)!r}"
                    break
    where = where or "it ends within a character"
    return UserError(
        f"{name or path} is not text in {encoding.upper()}, {where}: save it as UTF-8, with iconv for example"
    )


def _shown(line: bytes) -> str:
    """A line as Latin-1 has it, cut to what a message has room for."""
    return line.decode("latin-1").strip()[:40]
