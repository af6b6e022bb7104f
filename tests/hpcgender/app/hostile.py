"""Files that people or others may give to a page that asks for photos."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(side: int = 60_000) -> bytes:
    """A PNG of few kilobytes that would be gigabytes of pixels: its rows are as its header says."""
    compressor = zlib.compressobj(9)
    rows = compressor.compress(bytes(1 << 20)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def refused(photo: Path) -> Iterator[tuple[str, bytes, str]]:
    """Names and bytes of files that are no photos, and how the message about each begins."""
    with Image.open(photo) as image:
        yield "bomb.png", bomb(), "It has more than 50000000 pixels."
        yield "large.png", bomb(8000), "It has 8000x8000 pixels, more than 50000000."
        yield "notes.jpg", b"these are notes, not a picture\n" * 40, "It is not an image."
        yield "empty.jpg", b"", "The file is empty."
        yield "half.jpg", photo.read_bytes()[:900], "It does not decode: "
        yield "picture.png", saved(image, "GIF"), "It is GIF, not one of JPEG, "
        yield "page.jpg", b"%PDF-1.4\n" + bytes(2000), "It is not an image."
        yield "<img src=x onerror=alert(1)>.jpg", b"<svg onload='alert(1)'/>", "It is not an image."


def taken(photo: Path) -> Iterator[tuple[str, bytes, str]]:
    """Names and bytes of odd files that show a face, and what is noted about each; empty where nothing is."""
    with Image.open(photo) as image:
        other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name, form in (("two.webp", "WEBP"), ("two.png", "PNG")):
            frames = saved(image, form, save_all=True, append_images=[other], duration=100)
            yield name, frames, "The file has 2 pictures: the first one was used."
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        yield "deep.png", saved(Image.fromarray(deep), "PNG"), ""
        yield "print.jpg", saved(image.convert("CMYK"), "JPEG"), ""
        yield "clear.png", saved(image.convert("RGBA"), "PNG"), ""
        yield "gray.bmp", saved(image.convert("L"), "BMP"), ""
