"""Writes small RecordIO files as MXNet does, whole or spoiled on purpose."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.shard_tools.pictures import picture, save

MAGIC = struct.pack("<I", 0xCED7230A)


class Item(NamedTuple):
    """A record: its key, its label (a list is stored behind the header, a number in it), and its image."""

    key: int
    label: float | Sequence[float]
    image: bytes = b""


def record(item: Item) -> bytes:
    """A record's bytes in the file, split into parts where the magic occurs at a multiple of 4 bytes."""
    if isinstance(item.label, Sequence):
        header = struct.pack(f"<IfQQ{len(item.label)}f", len(item.label), 0, item.key, 0, *item.label)
    else:
        header = struct.pack("<IfQQ", 0, item.label, item.key, 0)
    data = header + item.image
    cuts = [at for at in range(0, len(data) - 3, 4) if data[at : at + 4] == MAGIC]
    pieces = [data[start:end] for start, end in zip([0, *(c + 4 for c in cuts)], [*cuts, len(data)], strict=True)]
    kinds = [1, *[2] * (len(pieces) - 2), 3] if cuts else [0]
    return b"".join(
        MAGIC + struct.pack("<I", kind << 29 | len(piece)) + piece + bytes(-len(piece) % 4)
        for kind, piece in zip(kinds, pieces, strict=True)
    )


def write_records(path: Path, items: Iterable[Item], idx: bool = True) -> list[int]:
    """Writes the records in the given order, and the `.idx` beside it if `idx`; returns their byte offsets."""
    offsets, keys, size = [], [], 0
    with path.open("wb") as file:
        for item in items:
            offsets.append(size)
            keys.append(item.key)
            size += file.write(record(item))
    if idx:
        write_idx(path, keys, offsets)
    return offsets


def write_idx(path: Path, keys: Iterable[int], offsets: Iterable[int]) -> None:
    """Writes the `.idx` beside a `.rec`."""
    lines = (f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=True))
    path.with_suffix(".idx").write_text("".join(lines))


def insightface(people: Sequence[Sequence[bytes]], scalar: bool = False) -> list[Item]:
    """The records of InsightFace's layout for the images of each identity; the header, record 0, comes last."""
    items: list[Item] = []
    ranges = []
    for identity, images in enumerate(people):
        first = len(items) + 1
        items += [Item(first + n, identity if scalar else [identity, 0], image) for n, image in enumerate(images)]
        ranges.append([first, len(items) + 1])
    stop = len(items) + 1
    items += [Item(stop + n, labels) for n, labels in enumerate(ranges)]
    return [*items, Item(0, [stop, stop + len(people)])]


def write_ms1mv2(directory: Path) -> None:
    """A small MS1MV2 with its list of genders: 8 identities of 4 pictures, one of unknown gender."""
    directory.mkdir(parents=True)
    face = directory / "face.jpg"
    people = []
    for identity in range(8):
        images = []
        for number in range(4):
            save(face, picture(10 * identity + number))
            images.append(face.read_bytes())
        people.append(images)
    face.unlink()
    write_records(directory / "train.rec", insightface(people))
    genders = [(key, (key - 1) // 4 % 2 if (key - 1) // 4 else -1) for key in range(1, 33)]
    (directory / "genders.txt").write_text("".join(f"{key} {gender}\n" for key, gender in genders))
