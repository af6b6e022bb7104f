"""Evidence by face region: heat maps against the user's masks, e.g. from a face parser."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcgender.cam.results import Region
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_text

NAMES = "names.txt"

Floats = npt.NDArray[np.float64]


def read_names(directory: Path) -> dict[int, str]:
    """The parts by their numbers in the masks; UserError if names.txt is not there or is not as it should be."""
    path = directory / NAMES
    example = "a line for each part, such as `1 skin`"
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({one_line(error)}): write {example}") from None
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        value, _, name = line.strip().partition(" ")
        if not value:
            continue
        if not value.isdecimal() or int(value) > 255 or not name.strip() or int(value) in names:
            raise UserError(f"{path}, line {number}: {line.strip()!r} is not a new number up to 255 and a name")
        names[int(value)] = name.strip()
    if not names:
        raise UserError(f"{path} names no part: write {example}")
    return names


def read_mask(path: Path) -> npt.NDArray[np.uint8] | None:
    """The centre square of a mask, which is what the network sees of its image; None if there is no such file.

    UserError if it is not a gray or palette image.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise UserError(f"{path} is of mode {image.mode}: a mask is a gray or palette image of 8 bits")
            values = np.asarray(image.convert("L") if image.mode == "1" else image)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from None
    side = min(values.shape)
    top, left = (int(np.floor((length - side) / 2 + 0.5)) for length in values.shape)
    return values[top : top + side, left : left + side]


def cell_areas(mask: npt.NDArray[np.uint8], numbers: Sequence[int], cells: tuple[int, int]) -> Floats:
    """The area of every region in each cell, as fractions of the image: float64 (regions, *cells)."""
    side = len(mask)
    rows, columns = (np.arange(side) * count // side for count in cells)
    place = rows[:, None] * cells[1] + columns[None, :]
    count = cells[0] * cells[1]
    pixels = np.bincount(mask.ravel() * np.int64(count) + place.ravel(), minlength=256 * count)
    return pixels.reshape(256, *cells)[list(numbers)] / side**2


def region_rows(
    directory: Path, keys: Sequence[bytes], maps: npt.NDArray[np.float32], names: Mapping[int, str]
) -> tuple[Floats, Floats]:
    """Of each image and part its area, and the sums of the evidence and of the absolute evidence over it, float64
    (n, regions, 3); and the latter over the whole image (n,). nan for images without a mask or a map."""
    parts, whole = np.full((len(keys), len(names), 3), np.nan), np.full(len(keys), np.nan)
    for place, (key, of_image) in enumerate(zip(keys, maps.astype(np.float64), strict=True)):
        mask = None if np.isnan(of_image).any() else read_mask(directory / f"{key.decode()}.png")
        if mask is None:
            continue
        every = cell_areas(mask, range(256), (maps.shape[1], maps.shape[2]))
        areas = every[list(names)]
        for column, weight in enumerate((1.0, of_image, np.abs(of_image))):
            parts[place, :, column] = (areas * weight).sum((1, 2))
        whole[place] = (every.sum(0) * np.abs(of_image)).sum()
    return parts, whole


def region_table(
    parts: Floats, whole: Floats, names: Mapping[int, str], averages: Mapping[str, npt.NDArray[np.bool_]]
) -> list[Region]:
    """The table of what `region_rows` gives, for sets of images, bool (n,) by name."""
    table = []
    for average, chosen in averages.items():
        with_mask = chosen & ~np.isnan(whole)
        for part, name in enumerate(names.values()):
            area, evidence, strength = parts[with_mask, part].T
            seen = area > 0
            if not seen.any():
                continue
            means = evidence[seen] / area[seen]
            images = len(means)
            table.append(
                Region(
                    average=average,
                    region=name,
                    images=images,
                    area=float(area[seen].mean()),
                    evidence=float(means.mean()),
                    standard_error=float(means.std(ddof=1) / np.sqrt(images)) if images > 1 else float("nan"),
                    share=float(strength.sum() / (whole[with_mask].sum() or 1.0)),
                )
            )
    return table


def write_regions(path: Path, table: Sequence[Region]) -> None:
    """Writes regions.csv."""
    with whole_text(path) as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Region)])
        writer.writeheader()
        for region in table:
            row = asdict(region)
            writer.writerow(
                {name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()}
            )
