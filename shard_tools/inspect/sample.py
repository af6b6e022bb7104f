"""One sample: its row of the index and its JSON, and its picture drawn in half blocks on a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.text import Text

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.parsing import load_json
from shard_tools.base.storage import unreadable
from shard_tools.base.text import print_facts
from shard_tools.images import ImageError, content_hash, opened
from shard_tools.inspect.faces import read_image, years
from shard_tools.inspect.statistics import UNKNOWN, text
from shard_tools.manifest import Manifest
from shard_tools.tar import BLOCK, MAX_LABEL_BYTES, TarError, blocks, members

COLUMNS = 40
"""Width of the picture on the terminal, characters; each shows two pixels, one above the other."""


@dataclass(frozen=True)
class Sample:
    """A sample as it lies in the data set."""

    fields: dict[str, Any]
    """The fields of its index row, and where that is; hashes as hexadecimal."""
    labels: dict[str, Any]
    """The JSON beside the image."""
    encoded: bytes
    intact: bool
    """Whether the image has the hash that is in the index."""


def read_sample(manifest: Manifest, split: str, number: int) -> Sample:
    """Sample `number` of a split; UserError if its shard cannot be read or holds no JSON for it."""
    row = manifest.index(split)[number]
    encoded = read_image(manifest, split, row)
    fields = {
        "split": split,
        "sample": number,
        "key": text(row["key"]),
        "file": manifest.split(split).shards[int(row["shard"])].file,
        "shard": int(row["shard"]),
        "offset": int(row["offset"]),
        "length": int(row["length"]),
        "gender": int(row["gender"]),
        "age": float(f"{row['age']:.6g}"),
        "subject": text(row["subject"]),
        "group": text(row["group"]),
        "row": int(row["row"]),
        "content": f"{int(row['content']):016x}",
        "appearance": f"{int(row['appearance']):016x}",
    }
    return Sample(fields, read_labels(manifest, split, row), encoded, content_hash(encoded) == int(row["content"]))


def read_labels(manifest: Manifest, split: str, row: np.void) -> dict[str, Any]:
    """The JSON that follows an image in its tar; UserError if there is none of its key."""
    path = manifest.shard_paths(split)[int(row["shard"])]
    try:
        with path.open("rb") as file:
            return labels_in(file, path, row)
    except OSError as error:
        raise unreadable(error, path) from None


def labels_in(file: BinaryIO, path: Path, row: np.void) -> dict[str, Any]:
    """The same in an open tar, whose path is for the error."""
    position = int(row["offset"]) + BLOCK * (blocks(int(row["length"])) - 1)
    name = f"{text(row['key'])}.json"
    try:
        member = next(members(file, position))
        if member.name != name:
            raise ValueError(f"{member.name!r} is there")
        if member.size > MAX_LABEL_BYTES:
            raise ValueError(f"it has {member.size} bytes, more than labels take")
        file.seek(member.offset)
        labels = load_json(file.read(member.size))
        if not isinstance(labels, dict):
            raise ValueError("it holds no labels")
    except (TarError, StopIteration, ValueError) as error:
        raise UserError(
            f"no {name} at byte {position} of {path}: {one_line(error)}; look with shard-tools verify {path.parents[1]}"
        ) from None
    return labels


def print_sample(manifest: Manifest, sample: Sample) -> None:
    """Prints the picture if the terminal has colours, and the labels."""
    console = Console(highlight=False)
    with_picture = console.color_system is not None and not console.no_color
    try:
        with opened(sample.encoded) as image:
            form = f"{image.width}x{image.height} {image.format}"
            upright = ImageOps.exif_transpose(image.convert("RGB")) if with_picture else None
    except ImageError as error:
        form, upright = f"no usable image: {error}", None
    if upright:
        console.print(half_blocks(upright))
        console.print()
    index = sample.fields
    gender = int(index["gender"])
    name = manifest.classes[gender] if 0 <= gender < len(manifest.classes) else UNKNOWN
    age = float(index["age"])
    print_facts(
        {
            "sample": f"{index['sample']:,} of {manifest.split(index['split']).samples:,} in {index['split']}",
            "key": index["key"],
            "gender": f"{gender} ({name})",
            "age": years(age),
            "subject": index["subject"] or UNKNOWN,
            "group": index["group"] or UNKNOWN,
            "image": form,
            "file": f"{index['file']} (shard {index['shard']})",
            "offset": f"{index['offset']} (byte of the file)",
            "length": f"{index['length']} bytes",
            "row": f"{index['row']} (of the source)",
            "content": f"{index['content']} ({'matches the image' if sample.intact else 'NOT that of the image'})",
            "appearance": index["appearance"],
        },
        "index",
    )
    print()
    print_facts({name: json_text(value) for name, value in sample.labels.items()}, f"{index['key']}.json")


def json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def half_blocks(image: Image.Image) -> Text:
    """The picture in upper half blocks: the letter's colour is the upper pixel, the background the lower one."""
    height = max(round(image.height / image.width * COLUMNS / 2), 1)
    pixels = np.asarray(image.resize((COLUMNS, 2 * height), Image.Resampling.LANCZOS))
    drawn = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for (r, g, b), (r2, g2, b2) in zip(upper.tolist(), lower.tolist(), strict=True):
            drawn.append("▀", f"rgb({r},{g},{b}) on rgb({r2},{g2},{b2})")
        drawn.append("\n")
    drawn.rstrip()
    return drawn
