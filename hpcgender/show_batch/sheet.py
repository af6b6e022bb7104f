"""The sheet: a batch's images as they reached the network, pixel for pixel, each on a card with its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hpcgender.show_batch.shown import Shown
from shard_tools.base.page import ACCENTS
from shard_tools.inspect.faces import years
from shard_tools.inspect.sheet import (
    CARD,
    FAINT,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAD,
    PAPER,
    PILL,
    RADIUS,
    SMALL,
    SMALLEST,
    SUBTITLE,
    TITLE,
    columns_of,
    fit,
    rounded,
)

SIDE = 192
"""Pixels that a picture's side is near to: each pixel of it is drawn as a square of one, two, ... pixels."""
ROOM = 900
"""Smallest width of the sheet between its margins, for the lines above the images."""
LEADING = 24
"""Height of one of those lines."""

Pixels = npt.NDArray[np.uint8]


def magnification(image_size: int) -> int:
    """Pixels of the sheet, per side, for one of the image."""
    return max(round(SIDE / image_size), 1)


def draw_sheet(images: Pixels, shown: Sequence[Shown], title: str, lines: Sequence[str]) -> Image.Image:
    """The sheet as an RGB image, of images (n, size, size, 3) and what is known of each, under a title and lines."""
    side = images.shape[1] * magnification(images.shape[1])
    details = [detail_lines(image, any(other.group for other in shown)) for image in shown]
    width, height = side + 2 * PAD, side + 3 * PAD + PILL + len(details[0]) * LINE
    columns = columns_of([len(images)])
    top = MARGIN + TITLE + len(lines) * LEADING + 22
    room = max(columns * (width + GAP) - GAP, ROOM)
    high = math.ceil(len(images) / columns) * (height + GAP) - GAP
    sheet = Image.new("RGB", (room + 2 * MARGIN, top + high + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    text, letters = fit(title, TITLE, room, smallest=SUBTITLE)
    pen.text((MARGIN, MARGIN + TITLE - 6), text, INK, letters, anchor="ls")
    for number, line in enumerate(lines, 1):
        text, letters = fit(line, SUBTITLE, room, smallest=SMALLEST)
        pen.text((MARGIN, MARGIN + TITLE + number * LEADING), text, FAINT, letters, anchor="ls")
    with_age = any(image.age >= 0 for image in shown)
    for number, (pixels, image, text_lines) in enumerate(zip(images, shown, details, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (width + GAP), top + row * (height + GAP)
        sheet.paste(Image.new("RGB", (width, height), CARD), (x, y), rounded((width, height), RADIUS))
        sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (x + PAD, y + PAD))
        draw_labels(pen, sheet, (x + PAD, y + side + 2 * PAD), side, image, with_age, text_lines)
    return sheet


def detail_lines(image: Shown, with_group: bool) -> list[str]:
    """The lines under a picture's class and age."""
    group = [image.group or "group unknown"] if with_group else []
    return [*group, image.key, f"sample {image.sample}, place {image.place}"]


def draw_labels(
    pen: ImageDraw.ImageDraw,
    sheet: Image.Image,
    corner: tuple[int, int],
    room: int,
    image: Shown,
    with_age: bool,
    details: Sequence[str],
) -> None:
    """The class as a coloured mark with the age beside it, and the lines below."""
    x, y = corner
    name, letters = fit(image.gender, SMALL, room - 16)
    mark = (math.ceil(letters.getlength(name)) + 16, PILL)
    accent = ACCENTS[image.label] if 0 <= image.label < len(ACCENTS) - 1 else ACCENTS[-1]
    sheet.paste(Image.new("RGB", mark, accent), corner, rounded(mark, PILL // 2))
    pen.text((x + 8, y + PILL / 2), name, "white", letters, anchor="lm")
    if with_age:
        age, letters = fit(years(image.age), SMALL, room - mark[0] - 6, smallest=SMALLEST)
        pen.text((x + room, y + PILL / 2), age, INK, letters, anchor="rm")
    for number, line in enumerate(details):
        last = number == len(details) - 1
        text, letters = fit(line, SMALL - last, room, smallest=SMALLEST)
        pen.text((x, y + PILL + number * LINE + LINE / 2 + 4), text, FAINT if last else INK, letters, anchor="lm")
