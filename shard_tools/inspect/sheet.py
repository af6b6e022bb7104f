"""The contact sheet: faces on cards, a line of cards for a gender at least, each with its labels under it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from shard_tools.base.page import ACCENTS
from shard_tools.inspect.faces import SIDE, Face

PAPER, CARD, EMPTY, INK, FAINT = "#f3f2ee", "#ffffff", "#e6e4de", "#1c1b19", "#66645e"
MARGIN, GAP, PAD, RADIUS = 40, 14, 9, 10
LINE, PILL = 19, 22
"""Heights of a line of text and of the gender's mark, pixels."""
TITLE, SUBTITLE, SMALL, SMALLEST = 30, 17, 14, 11
"""Font sizes."""

Font = ImageFont.FreeTypeFont


@lru_cache
def font(size: int, plain: bool = True) -> Font:
    """Pillow's own scalable font, or DejaVu, which comes with matplotlib, for what is not plain ASCII."""
    if plain:
        loaded = ImageFont.load_default(size)
        assert isinstance(loaded, Font)  # Pillow has it where it was built with FreeType, as its wheels are
        return loaded
    import matplotlib  # a quarter of a second that few sheets need

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", round(size * 0.93))


def draw_sheet(faces: Sequence[Face], title: str, subtitle: str) -> Image.Image:
    """The sheet as an RGB image. Each gender begins a line; `faces` come by gender. Text that is too long is cut."""
    groups = [[face for face in faces if face.gender == code] for code in sorted({face.gender for face in faces})]
    columns = columns_of([len(group) for group in groups])
    lines = max(len(face.details) for face in faces)
    width, height = SIDE + 2 * PAD, SIDE + 3 * PAD + PILL + lines * LINE
    top = MARGIN + TITLE + SUBTITLE + 36
    rows = sum(math.ceil(len(group) / columns) for group in groups)
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + columns * (width + GAP) - GAP, top + rows * (height + GAP) - GAP + MARGIN),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * MARGIN
    text, letters = fit(title, TITLE, room, smallest=SUBTITLE)
    pen.text((MARGIN, MARGIN + TITLE - 6), text, INK, letters, anchor="ls")
    text, letters = fit(subtitle, SUBTITLE, room, smallest=SMALLEST)
    pen.text((MARGIN, MARGIN + TITLE + SUBTITLE + 7), text, FAINT, letters, anchor="ls")
    y = top
    for group in groups:
        for number, face in enumerate(group):
            x = MARGIN + number % columns * (width + GAP)
            draw_card(sheet, (x, y + number // columns * (height + GAP)), (width, height), face)
        y += math.ceil(len(group) / columns) * (height + GAP)
    return sheet


def columns_of(groups: Sequence[int]) -> int:
    """The number of columns, at least 4, that leaves the fewest gaps on a sheet about as wide as high."""
    best = max(math.sqrt(sum(groups) * 1.35), 4)

    def price(columns: int) -> float:
        return sum(-count % columns for count in groups) + 0.5 * abs(columns - best)

    return min(range(max(math.floor(best) - 1, 4), math.ceil(best) + 2), key=price)


def draw_card(sheet: Image.Image, corner: tuple[int, int], size: tuple[int, int], face: Face) -> None:
    """One face with its labels."""
    x, y = corner
    pen = ImageDraw.Draw(sheet)
    sheet.paste(Image.new("RGB", size, CARD), corner, rounded(size, RADIUS))
    sheet.paste(picture(face), (x + PAD, y + PAD), rounded((SIDE, SIDE), RADIUS - 4))

    name, letters = fit(face.name, SMALL, SIDE - 16)
    pill = (math.ceil(letters.getlength(name)) + 16, PILL)
    top = y + SIDE + 2 * PAD
    accent = ACCENTS[min(face.gender, len(ACCENTS) - 1)]
    sheet.paste(Image.new("RGB", pill, accent), (x + PAD, top), rounded(pill, PILL // 2))
    middle = top + PILL / 2
    pen.text((x + PAD + 8, middle), name, "white", letters, anchor="lm")
    age, letters = fit(face.age, SMALL, SIDE - pill[0] - 6, smallest=SMALLEST)
    pen.text((x + PAD + SIDE, middle), age, INK, letters, anchor="rm")
    for number, line in enumerate(face.details):
        last = number == len(face.details) - 1
        text, letters = fit(line, SMALL - last, SIDE, smallest=SMALLEST)
        baseline = top + PILL + number * LINE + LINE / 2 + 4
        pen.text((x + PAD, baseline), text, FAINT if last else INK, letters, anchor="lm")


def picture(face: Face) -> Image.Image:
    """The face in a square of `SIDE` pixels, its sides kept in proportion; a note where it does not decode."""
    square = Image.new("RGB", (SIDE, SIDE), EMPTY)
    if face.jpeg is None:
        ImageDraw.Draw(square).text((SIDE / 2, SIDE / 2), "does not decode", FAINT, font(SMALL), anchor="mm")
        return square
    with Image.open(io.BytesIO(face.jpeg)) as image:
        shown = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    square.paste(shown, ((SIDE - shown.width) // 2, (SIDE - shown.height) // 2))
    return square


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
