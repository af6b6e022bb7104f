"""What is known of each image of a batch: its labels, where it lies, and how it was varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from hpcgender.data.augment_params import Draws, centred
from hpcgender.data.order import Samples
from shard_tools.index import Index
from shard_tools.inspect.statistics import UNKNOWN, text
from shard_tools.manifest import Manifest

MEANING = {
    "size": "height and width of the crop, as parts of the image's shorter side",
    "corner": "where the crop lies, from 0 (top, left) to 1 (bottom, right)",
    "mirror": "1 for a horizontal flip",
    "angle": "degrees of the rotation, counter-clockwise",
    "colour": "factors of brightness, contrast and saturation, and the hue's turn in degrees",
    "sigma": "standard deviation of the blur, pixels",
    "erase": "top, left, height and width of what is erased, as parts of the picture's side",
}
"""Of the fields of `Draws`."""


@dataclass(frozen=True)
class Shown:
    """One image of a batch."""

    place: int
    """In the global batch, from 0: rank r of W has the places r, r + W, r + 2 W, ..."""
    sample: int
    """Its number in the index."""
    key: str
    file: str
    """Its shard, within the data set."""
    label: int
    """-1 unknown."""
    gender: str
    """The label's class."""
    age: float
    """Years, -1 unknown."""
    group: str
    subject: str
    varied: dict[str, Any]
    """The fields of its `Draws`, a number or a list of numbers each."""


def describe(
    manifest: Manifest, split: str, index: Index, places: Samples, samples: Samples, draws: Draws
) -> list[Shown]:
    """What is known of the samples (n,) at some places (n,) of a batch, and of their n draws."""
    shards = manifest.split(split).shards
    columns = {field.name: getattr(draws, field.name).tolist() for field in fields(draws)}
    shown = []
    for number, (place, sample) in enumerate(zip(places.tolist(), samples.tolist(), strict=True)):
        row = index[sample]
        label = int(row["gender"])
        shown.append(
            Shown(
                place=place,
                sample=sample,
                key=text(row["key"]),
                file=shards[row["shard"]].file,
                label=label,
                gender=manifest.classes[label] if label >= 0 else UNKNOWN,
                age=round(float(row["age"]), 3),
                group=text(row["group"]),
                subject=text(row["subject"]),
                varied={name: values[number] for name, values in columns.items()},
            )
        )
    return shown


def table(shown: Sequence[Shown]) -> list[str]:
    """Aligned lines: the names of the columns, each image's labels and its `Draws`, and what the fields of those mean.

    - is for what the image is not varied in, and what none is varied in has no column.
    """
    plain = {field.name: getattr(centred(1), field.name)[0].tolist() for field in fields(Draws)}
    drawn = [name for name, value in plain.items() if any(image.varied[name] != value for image in shown)]
    rows = [("place", "sample", "key", "gender", "file", *drawn)]
    for image in shown:
        varied = (numbers(image.varied[name]) if image.varied[name] != plain[name] else "-" for name in drawn)
        rows.append((str(image.place), str(image.sample), image.key, image.gender, image.file, *varied))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justified = (str.rjust, str.rjust, *[str.ljust] * (len(widths) - 2))
    lines = [
        "  ".join(justify(cell, width) for justify, cell, width in zip(justified, row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [*lines, "", *(f"{name}: {MEANING[name]}" for name in drawn)] if drawn else lines


def numbers(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(numbers, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)
