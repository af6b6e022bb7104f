"""Files that are often given in place of the right one, recognised by their first bytes."""

from __future__ import annotations

from collections.abc import Mapping

_PAGE = (
    "is a web page, not the file itself: was a login page saved? On Hugging Face and GitHub a file's own link has "
    "resolve or raw instead of blob"
)
_OTHERS = {
    b"version https://git-lfs": "is a git-lfs pointer, not the file itself: fetch that with git lfs pull",
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"<head": _PAGE,
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"bzh": "is compressed with bzip2: unpack it",
    b"\xfd7zxz": "is compressed with xz: unpack it",
    b"7z\xbc\xaf": "is a 7z archive: unpack it",
    b"rar!": "is a RAR archive: unpack it",
}
"""By their first bytes in lower case."""


def other_kind(head: bytes, more: Mapping[bytes, str] | None = None) -> str:
    """What a file with this beginning is instead, and the remedy, as `is a web page: ...`; empty for any other file.

    `more` are further kinds, by their first bytes in lower case.
    """
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for first, what in (_OTHERS | dict(more or {})).items() if begin.startswith(first)), "")
