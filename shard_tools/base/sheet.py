"""Contact sheets: pictures on cards, each with its labels under it, below a title."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from shard_tools.base.colours import ACCENTS, accent

PAPER, CARD, INK, FAINT = "#f3f2ee", "#ffffff", "#1c1b19", "#66645e"
MARGIN, GAP, PAD, RADIUS = 40, 14, 9, 10
LINE, PILL, LEADING = 19, 22, 24
"""Heights of a line of a card, of the coloured mark, and of a line below the title, pixels."""
TITLE, SUBTITLE, SMALL, SMALLEST = 30, 17, 14, 11
"""Font sizes."""

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Card:
    """A picture and its labels."""

    picture: Image.Image
    """RGB: all of a sheet have the same size."""
    label: int
    """Class of the gender, which gives the mark its colour."""
    name: str
    """Of the class, in the mark."""
    age: str
    """Beside the mark."""
    details: tuple[str, ...]
    """Lines below: of all cards as many. The last one is small."""


@lru_cache
def font(size: int, plain: bool = True) -> Font:
    """Pillow's own scalable font, or DejaVu, which comes with matplotlib, for text that is not ASCII."""
    if plain:
        loaded = ImageFont.load_default(size)
        assert isinstance(loaded, Font)  # Pillow has it where it was built with FreeType, as its wheels are
        return loaded
    import matplotlib  # a quarter of a second that few sheets need

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", round(size * 0.93))


def draw_sheet(groups: Sequence[Sequence[Card]], title: str, lines: Sequence[str], room: int = 0) -> Image.Image:
    """The sheet as an RGB image. Each group of cards begins a row; text that is too long is cut.

    `room` is the least width between the margins, pixels.
    """
    columns = columns_of([len(group) for group in groups])
    picture, details = groups[0][0].picture, max(len(card.details) for group in groups for card in group)
    width, height = picture.width + 2 * PAD, picture.height + 3 * PAD + PILL + details * LINE
    top = MARGIN + TITLE + len(lines) * LEADING + 29
    rows = sum(math.ceil(len(group) / columns) for group in groups)
    room = max(columns * (width + GAP) - GAP, room)
    sheet = Image.new("RGB", (room + 2 * MARGIN, top + rows * (height + GAP) - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    text, letters = fit(title, TITLE, room, smallest=SUBTITLE)
    pen.text((MARGIN, MARGIN + TITLE - 6), text, INK, letters, anchor="ls")
    for number, line in enumerate(lines, 1):
        text, letters = fit(line, SUBTITLE, room, smallest=SMALLEST)
        pen.text((MARGIN, MARGIN + TITLE + number * LEADING), text, FAINT, letters, anchor="ls")
    y = top
    for group in groups:
        for number, card in enumerate(group):
            corner = (MARGIN + number % columns * (width + GAP), y + number // columns * (height + GAP))
            draw_card(sheet, corner, (width, height), card)
        y += math.ceil(len(group) / columns) * (height + GAP)
    return sheet


def columns_of(groups: Sequence[int]) -> int:
    """The number of columns, at least 4, that leaves the fewest gaps on a sheet about as wide as high."""
    best = max(math.sqrt(sum(groups) * 1.35), 4)

    def price(columns: int) -> float:
        return sum(-count % columns for count in groups) + 0.5 * abs(columns - best)

    return min(range(max(math.floor(best) - 1, 4), math.ceil(best) + 2), key=price)


def draw_card(sheet: Image.Image, corner: tuple[int, int], size: tuple[int, int], card: Card) -> None:
    """One card, its upper left corner at `corner`."""
    x, y = corner[0] + PAD, corner[1] + PAD
    side = card.picture.width
    pen = ImageDraw.Draw(sheet)
    sheet.paste(Image.new("RGB", size, CARD), corner, rounded(size, RADIUS))
    sheet.paste(card.picture, (x, y))
    y += card.picture.height + PAD
    name, letters = fit(card.name, SMALL, side - 16)
    mark = (math.ceil(letters.getlength(name)) + 16, PILL)
    sheet.paste(Image.new("RGB", mark, ACCENTS[accent(card.label)]), (x, y), rounded(mark, PILL // 2))
    pen.text((x + 8, y + PILL / 2), name, "white", letters, anchor="lm")
    age, letters = fit(card.age, SMALL, side - mark[0] - 6, smallest=SMALLEST)
    pen.text((x + side, y + PILL / 2), age, INK, letters, anchor="rm")
    for number, line in enumerate(card.details):
        last = number == len(card.details) - 1
        text, letters = fit(line, SMALL - last, side, smallest=SMALLEST)
        middle = y + PILL + number * LINE + LINE / 2 + 4
        pen.text((x, middle), text, FAINT if last else INK, letters, anchor="lm")


@lru_cache
def rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask of that size with smooth round corners."""
    large = Image.new("L", (4 * size[0], 4 * size[1]))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), 4 * radius, fill=255)
    return large.resize(size, Image.Resampling.BOX)


def fit(text: str, size: int, room: float, smallest: int | None = None) -> tuple[str, Font]:
    """The text and a font that stay within `room` pixels: first smaller letters, then a gap in its middle."""
    plain = text.isascii()
    while font(size, plain).getlength(text) > room and size > (smallest or size):
        size -= 1
    letters = font(size, plain)
    kept, shown = len(text), text
    while letters.getlength(shown) > room and kept > 0:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown, letters
