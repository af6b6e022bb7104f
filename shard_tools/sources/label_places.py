"""Finds the images that lines of a list are about: by record key, by identity, by path."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.base.text_files import open_text
from shard_tools.recordio import Ints, is_whole
from shard_tools.sources.label_lists import CHUNK, Find, Texts, Wrong

Hashes = npt.NDArray[np.uint64]


def by_key(keys: Ints) -> Find:
    """Finds record keys among the ascending `keys`."""
    return lambda texts, wrong: _search(keys, _whole_numbers(texts, "record key", wrong))


def by_identity(present: npt.NDArray[np.bool_]) -> Find:
    """Finds identities, which are their own places, if they are `present`."""

    def find(texts: Texts, wrong: Wrong) -> Ints:
        numbers = _whole_numbers(texts, "number of an identity", wrong)
        inside = (numbers >= 0) & (numbers < len(present))
        return np.where(inside & present[np.where(inside, numbers, 0)], numbers, -1)

    return find


def by_stem(keys: Ints, identities: npt.NDArray[np.int32] | None) -> Find:
    """Finds paths `<identity>/<key>.jpg` by the record key, as extractors name the images of a RecordIO file.

    Some extractors number images from one in every directory. Therefore a directory whose name is a number must be the
    image's identity, where `identities` are known.
    """

    def find(texts: Texts, wrong: Wrong) -> Ints:
        parts = [text.strip().replace("\\", "/").rsplit("/", 2) for text in texts]
        stems = [part[-1].split(".", 1)[0] for part in parts]
        places = _search(keys, _whole_numbers(stems, "record key (or give --lst to find records by path)", wrong))
        if identities is not None:
            names = [part[-2] if len(part) > 1 and part[-2].isdecimal() else "-1" for part in parts]
            directory = np.fromiter(map(int, names), np.int64, len(names))
            for row in np.flatnonzero((places >= 0) & (directory >= 0) & (identities[places] != directory)).tolist():
                wrong[row] = (
                    f"{texts[row]!r} is not in the directory of its identity: record {stems[row]} is of "
                    f"{identities[places[row]]}; if the names are not record keys, give --lst to find records by path"
                )
        return places

    return find


def by_path(lst: Path, keys: Ints) -> Find:
    """Finds paths as im2rec's list has them, lines `key<TAB>label<TAB>path`; `keys` are ascending.

    Raises UserError if a line of it is something else or a path occurs twice.
    """
    hashes = np.zeros(len(keys), np.uint64)
    before = 0
    with open_text(lst, errors="surrogateescape") as file:
        while lines := file.readlines(CHUNK):
            rows = [line.rstrip("\r\n").split("\t") for line in lines]
            for number, row in enumerate(rows, before + 1):
                if len(row) < 3 or not row[0].strip().isdecimal():
                    raise UserError(f"{lst}: line {number} is not `key<TAB>label<TAB>path`: give the .lst of im2rec.py")
            before += len(lines)
            places = _search(keys, np.fromiter((int(row[0]) for row in rows), np.int64, len(rows)))
            there = places >= 0  # im2rec leaves out what it cannot read
            hashes[places[there]] = _hashes([row[-1] for row in rows])[there]
    missing = int(np.count_nonzero(hashes == 0))
    order = np.argsort(hashes)[missing:]
    hashes.sort()  # as hashes[order] does, without a copy
    hashes = hashes[missing:]
    for twice in np.flatnonzero(hashes[1:] == hashes[:-1])[:1]:
        raise UserError(f"{lst} has one path for the records {keys[order[twice]]} and {keys[order[twice + 1]]}")

    def find(texts: Texts, wrong: Wrong) -> Ints:
        found = _search(hashes, _hashes(texts))
        return np.where(found >= 0, order[found], -1) if len(order) else found

    return find


def _search(ascending: Ints | Hashes, values: Ints | Hashes) -> Ints:
    """Where the values are, -1 for those that are nowhere."""
    if not len(ascending):
        return np.full(len(values), -1, np.int64)
    found = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[found] == values, found, -1)


def _whole_numbers(texts: Texts, what: str, wrong: Wrong) -> Ints:
    """The texts as numbers; adds the rows of those that are none to `wrong`."""
    try:
        return np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        whole = list(map(is_whole, texts))
    for row in np.flatnonzero(np.logical_not(whole)).tolist():
        wrong[row] = f"{texts[row]!r} is not a {what}, which is a whole number"
    return np.array([int(text) if fine else -1 for text, fine in zip(texts, whole, strict=True)], np.int64)


def _hashes(paths: Texts) -> Hashes:
    """64 bits of each path: of 6 million, two are equal by chance once in a million lists."""
    plain = (path.strip().replace("\\", "/").removeprefix("./") for path in paths)
    digests = (blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest() for path in plain)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)
