"""What a file of weights is by its first bytes, so that what is none is named before torch is imported."""

from __future__ import annotations

import string
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from shard_tools.base.errors import UserError
from shard_tools.base.other_files import other_kind

HEAD_BYTES = 1024
SAVE = "torch.save(model.state_dict(), FILE)"
"""How a person writes a file that can be read."""
AGAIN = "copy or download it again"
OTHERS = {
    b"\x89hdf": f"is an HDF5 file, as Keras writes: give one that {SAVE} wrote",
    b"<?xml": "is an XML file, not weights: look at what was saved there",
}
"""Files that are given in place of weights, by their first bytes in lower case."""


def weights_format(path: Path) -> Literal["safetensors", "torch"]:
    """The format of a file of weights, of which only the beginning is read, or the list of members of an archive.

    Raises UserError, in one line with the remedy, for a file that holds no weights that can be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise UserError(f"{path} is empty: {AGAIN}")
    if what := other_kind(head, OTHERS):
        raise UserError(f"{path} {what}")
    if head.startswith(b"PK"):
        check_archive(path)
    elif head[8:9] == b"{":  # safetensors: the length of a JSON header, then the header
        if path.stat().st_size < 8 + int.from_bytes(head[:8], "little"):
            raise UserError(f"{path} is cut short: {AGAIN}")
        return "safetensors"
    elif not head.startswith(b"\x80"):  # a pickle, as torch wrote before version 1.6
        what = "is text" if not set(head) - set(string.printable.encode()) else "is of an unknown format"
        raise UserError(f"{path} {what}, not weights: give a file that {SAVE} wrote, or safetensors")
    return "torch"


def larger_than(records: Iterable[zipfile.ZipInfo], length: int) -> bool:
    """Whether the records of an archive take more bytes than it has: compressed ones may grow without end."""
    return sum(record.file_size for record in records) > length


def check_archive(path: Path) -> None:
    """Raises UserError for a zip archive that torch.save did not write, or not to its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        raise UserError(f"{path} is cut short or damaged: {AGAIN}") from None
    names = {record.filename.rpartition("/")[2] for record in records}
    if "constants.pkl" in names:
        raise UserError(f"{path} is a TorchScript program: load it with torch.jit.load, and {SAVE}")
    if "data.pkl" not in names:
        raise UserError(f"{path} is a zip archive without weights: unpack it, or give a file that {SAVE} wrote")
    if larger_than(records, path.stat().st_size):
        raise UserError(f"{path} is compressed, or its records are larger than the file: load it, and {SAVE}")
