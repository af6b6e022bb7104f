"""Single images of a data set: drawn at random by gender, read from their shards, shown with their labels."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from shard_tools.base.errors import UserError
from shard_tools.base.sheet import CARD, FAINT, RADIUS, SMALL, Card, draw_sheet, font, rounded
from shard_tools.base.storage import retried, unreadable
from shard_tools.images import ImageError, reencode
from shard_tools.index import Index
from shard_tools.inspect.statistics import UNKNOWN, Statistics, gender_codes, text
from shard_tools.manifest import Manifest

SIDE = 176
"""Shorter side of the pictures in pixels; smaller ones stay as they are."""
EMPTY = "#e6e4de"
"""Beside a picture on a sheet that is no square."""


@dataclass(frozen=True)
class Face:
    """A picture to show, and its labels as text."""

    gender: int
    """The class; any other number if unknown."""
    name: str
    """Of the gender."""
    age: str
    """Empty if no image of the data set has one."""
    details: tuple[str, ...]
    """Lines below: group and subject, if the data set has any, and the key."""
    jpeg: bytes | None
    """The picture, upright and small; None if it does not decode."""

    @property
    def description(self) -> str:
        """All of it in one line."""
        name = f"gender {UNKNOWN}" if self.name == UNKNOWN else self.name
        return ", ".join(part for part in (name, self.age, *self.details) if part)


def face_sheet(faces: Sequence[Face], title: str, subtitle: str) -> Image.Image:
    """A contact sheet, RGB, of faces that come by gender: each gender begins a row."""
    groups = [
        [Card(picture(face), face.gender, face.name, face.age, face.details) for face in group]
        for _, group in groupby(faces, lambda face: face.gender)
    ]
    return draw_sheet(groups, title, [subtitle])


def picture(face: Face) -> Image.Image:
    """A square of `SIDE` pixels with round corners: the face in its proportions, or a note that it does not decode."""
    square = Image.new("RGB", (SIDE, SIDE), EMPTY)
    if face.jpeg is None:
        ImageDraw.Draw(square).text((SIDE / 2, SIDE / 2), "does not decode", FAINT, font(SMALL), anchor="mm")
    else:
        with Image.open(io.BytesIO(face.jpeg)) as image:
            shown = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
        square.paste(shown, ((SIDE - shown.width) // 2, (SIDE - shown.height) // 2))
    return Image.composite(square, Image.new("RGB", square.size, CARD), rounded(square.size, RADIUS - 4))


def draw(gender: npt.NDArray[np.int8], count: int, seed: int) -> npt.NDArray[np.intp]:
    """The numbers of `count` images, or all if there are fewer: as many of each gender in `gender` as can be.

    They come by gender. Equal arguments give equal numbers.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(gender == code) for code in np.unique(gender)]
    left, places, takes = count, len(members), {}
    for number in sorted(range(places), key=lambda i: len(members[i])):  # what a small one leaves, larger ones fill
        takes[number] = min(len(members[number]), left // places)
        left -= takes[number]
        places -= 1
    chosen = [generator.choice(rows, takes[i], replace=False) for i, rows in enumerate(members)]
    return np.concatenate([*chosen, np.zeros(0, np.intp)]).astype(np.intp)


def draw_faces(manifest: Manifest, splits: Sequence[str], statistics: Statistics, count: int, seed: int) -> list[Face]:
    """Faces drawn at random from some splits, by gender, and by age within one; UserError if a shard cannot be read."""
    indexes = [manifest.index(name) for name in splits]
    gender = gender_codes(np.concatenate([index["gender"] for index in indexes]), len(manifest.classes))
    starts = np.cumsum([0, *(len(index) for index in indexes)])
    numbers = draw(gender, count, seed)
    owners = np.searchsorted(starts, numbers, side="right") - 1
    rows = [
        (splits[owner], indexes[owner][number - starts[owner]]) for owner, number in zip(owners, numbers, strict=True)
    ]
    faces = [
        (int(gender[number]), float(row["age"]), face(manifest, statistics, split, row, int(gender[number])))
        for number, (split, row) in zip(numbers, rows, strict=True)
    ]
    return [shown for _, _, shown in sorted(faces, key=lambda item: (item[0], item[1] if item[1] >= 0 else np.inf))]


def face(manifest: Manifest, statistics: Statistics, split: str, row: np.void, gender: int) -> Face:
    try:
        jpeg = reencode(read_image(manifest, split, row), SIDE, 92)
    except ImageError:
        jpeg = None
    details = []
    if statistics.by_group.known:
        details.append(text(row["group"]) or "group unknown")
    if statistics.subjects:
        details.append(f"subject {text(row['subject']) or 'unknown'}")
    return Face(
        gender,
        statistics.genders[gender],
        years(float(row["age"])) if statistics.by_age.known else "",
        (*details, text(row["key"])),
        jpeg,
    )


def years(age: float) -> str:
    """An age with its unit."""
    return "age unknown" if not age >= 0 else f"{age:.3g} year{'' if age == 1 else 's'}"


def read_image(manifest: Manifest, split: str, row: np.void) -> bytes:
    """The encoded image of an index row; UserError if its shard cannot be read or ends before it."""
    shards = manifest.shard_paths(split)
    number, offset, length = int(row["shard"]), int(row["offset"]), int(row["length"])
    if number >= len(shards):
        raise UserError(f"the index of {split} names shard {number} of {len(shards)}: pack the data set again")

    def read() -> bytes:
        with shards[number].open("rb") as file:
            file.seek(offset)
            return file.read(length)

    try:
        encoded = retried(read, shards[number])
    except OSError as error:
        raise unreadable(error, shards[number]) from None
    if len(encoded) != length:
        raise UserError(f"{shards[number]} ends within {text(row['key'])}: restore or pack it again")
    return encoded


def find(manifest: Manifest, splits: Sequence[str], wanted: str) -> tuple[str, int]:
    """The split and number of the sample that `wanted` names: a number in the first split, or a key in any of them.

    Raises UserError if there is none.
    """
    if re.fullmatch(r"-?\d+", wanted):
        samples = manifest.split(splits[0]).samples
        if not 0 <= int(wanted) < samples:
            raise UserError(f"--sample {wanted}: {splits[0]} has samples 0 to {samples - 1}")
        return splits[0], int(wanted)
    key = wanted.removeprefix("key:")
    for name in splits:
        index: Index = manifest.index(name)
        found = np.flatnonzero(index["key"] == key.encode("utf-8", "surrogateescape"))
        if len(found):
            return name, int(found[0])
    raise UserError(f"no sample with key {key!r} in {', '.join(splits)}: give a number, or a key as tar tf lists them")
