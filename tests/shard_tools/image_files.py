"""Image files of every kind that cameras, programs and accidents make, all of one drawn picture."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 100, 90


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def drawn() -> Image.Image:
    """No two of whose orientations look alike."""
    pixels = np.random.default_rng(3).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def exif(orientation: int, order: str = ">", kind: int = 3, entries: int = 1) -> bytes:
    """An EXIF block with its TIFF header; a number of `entries` above 1 makes it too short."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IHHHIHxxI", 8, entries, 0x112, kind, 1, orientation, 0)


def jpeg_with(*blocks: bytes) -> bytes:
    """A JPEG with segments APP1."""
    jpeg = encoded(drawn(), "JPEG", quality=95)
    segments = (b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks)
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def without(jpeg: bytes, marker: bytes) -> bytes:
    """A JPEG without the first segment of a marker."""
    at = jpeg.index(marker)
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: np.ndarray, depth: int, colours: int, *chunks: bytes, height: int = HEIGHT) -> bytes:
    """A PNG of rows of bytes, (HEIGHT, n) uint8, whose header may state another height."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", WIDTH, height, depth, colours, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp(*chunks: tuple[bytes, bytes], flags: int = 0) -> bytes:
    """A WebP in the extended format."""
    head = bytes([flags, 0, 0, 0]) + struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for kind, content in ((b"VP8X", head), *chunks)
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp16() -> bytes:
    pixels = np.asarray(drawn()).astype(np.uint16) >> 3
    packed = (pixels[::-1, :, 0] << 10 | pixels[::-1, :, 1] << 5 | pixels[::-1, :, 2]).astype("<u2").tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, 0, len(packed), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(packed), 0, 0, 54) + head + packed


def image_files() -> dict[str, tuple[bytes, str]]:
    """A file of each kind by its name, and why it is left out; empty if it is packed as it is."""
    image = drawn()
    gray = image.convert("L")
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    jpeg, cmyk = encoded(image, "JPEG", quality=95), encoded(image.convert("CMYK"), "JPEG", quality=95)
    ycck = bytearray(cmyk)
    ycck[cmyk.index(b"\xff\xee") + 15] = 2  # Adobe's transform
    junk = b"Exif\0\0" + bytes(range(60, 200))
    turned = b"Exif\0\0" + exif(6)
    whole = encoded(image, "PNG")
    rgb, wide = np.asarray(image).reshape(HEIGHT, -1), (np.asarray(image).astype(">u2") * 257).reshape(HEIGHT, -1)
    at = whole.index(b"IDAT")
    broken = bytearray(whole)
    broken[at + 4 + int.from_bytes(whole[at - 4 : at], "big")] ^= 255
    lossy = encoded(image, "WEBP", quality=95)
    picture = (lossy[12:16], lossy[20 : 20 + struct.unpack_from("<I", lossy, 16)[0]])
    packed = {
        "jpeg": jpeg,
        "progressive": encoded(image, "JPEG", quality=95, progressive=True),
        "gray jpeg": encoded(gray, "JPEG", quality=95),
        "rgb jpeg": encoded(image, "JPEG", quality=95, keep_rgb=True),
        "cmyk": cmyk,
        "ycck": bytes(ycck),
        "jpeg without JFIF": without(jpeg, b"\xff\xe0"),
        "two pictures": encoded(image, "MPO", save_all=True, append_images=[image.rotate(180)]),
        "markers that are filled up": jpeg.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
        "trailing garbage": jpeg + b"garbage" * 9,
        "a colour profile that is none": encoded(image, "JPEG", quality=95, icc_profile=b"none" * 99),
        "exif that is no TIFF": jpeg_with(junk),
        "exif of two bytes": jpeg_with(b"Exif\0\0MM"),
        "exif of another TIFF": jpeg_with(turned.replace(b"MM\0*", b"MM\0+")),
        "exif beyond its end": jpeg_with(b"Exif\0\0MM\0*\0\0\xff\xf0"),
        "turned, as a long": jpeg_with(b"Exif\0\0" + struct.pack(">4sIHHHIII", b"MM\0*", 8, 1, 0x112, 4, 1, 6, 0)),
        "turned, as a long of Intel": jpeg_with(b"Exif\0\0" + exif(6, "<", kind=4)),
        "turned, by no orientation": jpeg_with(b"Exif\0\0" + exif(9)),
        "upright, too short": jpeg_with(b"Exif\0\0" + exif(1, entries=5)),
        "junk, then turned": jpeg_with(junk, turned),
        "turned, then the rest of a long block": jpeg_with(turned, b"Exif\0\0" + bytes(99)),
        "png": whole,
        "gray png": encoded(gray, "PNG"),
        "png of 1 bit": encoded(image.convert("1"), "PNG"),
        "png of a palette": encoded(palette, "PNG"),
        "png of a transparent palette": encoded(palette, "PNG", transparency=bytes(range(256))),
        "png with alpha": encoded(clear, "PNG"),
        "gray png with alpha": encoded(clear.convert("LA"), "PNG"),
        "png of 16 bits": encoded(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "PNG"),
        "colour png of 16 bits": png(wide, 16, 2),
        "animated png": encoded(image, "PNG", save_all=True, append_images=[image.rotate(180)]),
        "png with a gamma": png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 100_000))),
        "png with bytes after it": whole + b"garbage",
        "png, junk exif": png(rgb, 8, 2, chunk(b"eXIf", junk[6:])),
        "png, exif as in a jpeg": png(rgb, 8, 2, chunk(b"eXIf", turned)),
        "webp": lossy,
        "lossless": encoded(image, "WEBP", lossless=True),
        "webp with alpha": encoded(clear, "WEBP", quality=95),
        "animated webp": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)]),
        "webp, exif of no flag": webp(picture, (b"EXIF", exif(6))),
        "webp, junk exif": webp(picture, (b"EXIF", junk[6:]), flags=8),
        "webp, exif as in a jpeg": webp(picture, (b"EXIF", turned), flags=8),
        "bmp": encoded(image, "BMP"),
        "bmp of a palette": encoded(palette, "BMP"),
        "bmp of 32 bits": encoded(clear, "BMP"),
        **{f"turned {how}": jpeg_with(b"Exif\0\0" + exif(how, order)) for how in range(1, 9) for order in "<>"},
        **{f"png turned {how}": png(rgb, 8, 2, chunk(b"eXIf", exif(how))) for how in (3, 5, 6)},
        **{f"webp turned {how}": webp(picture, (b"EXIF", exif(how)), flags=8) for how in (3, 5, 6)},
    }
    left_out = {
        "cmyk without Adobe's mark": (without(cmyk, b"\xff\xee"), "CMYK JPEG without Adobe's mark"),
        "turned, too short": (jpeg_with(b"Exif\0\0" + exif(6, entries=5)), "EXIF block is damaged"),
        "turned twice": (jpeg_with(turned, b"Exif\0\0" + exif(3)), "different orientations"),
        "bytes between segments": (jpeg.replace(b"\xff\xdb", b"\0\xff\xdb", 1), "other bytes between its segments"),
        "cut short": (jpeg[: len(jpeg) // 2], "truncated"),
        "png without its end": (whole[:-12], "without its end"),
        "png cut short": (whole[: len(whole) // 2], "truncated"),
        "png of a wrong checksum": (bytes(broken), "wrong checksum of its chunk IDAT"),
        "png that lacks rows": (png(rgb, 8, 2, height=HEIGHT + 5), "lacks rows"),
        "png of an unknown chunk": (png(rgb, 8, 2, chunk(b"CRIT", b"")), "unknown chunk 'CRIT'"),
        "png of two exif blocks": (png(rgb, 8, 2, chunk(b"eXIf", exif(6)), chunk(b"eXIf", exif(1))), "two EXIF blocks"),
        "webp, exif after an odd chunk": (webp(picture, (b"XMP ", b"odd"), (b"EXIF", exif(6)), flags=12), "odd length"),
        "webp, exif that is missing": (webp(picture, flags=8), "is missing"),
        "webp cut short": (lossy[:-99], "does not decode"),
        "bmp of 16 bits": (bmp16(), "16 bits a pixel"),
        "gif": (encoded(image, "GIF"), "it is GIF"),
        "tiff": (encoded(image, "TIFF"), "it is TIFF"),
        "text": (b"an image, it says", "not an image"),
        "nothing": (b"", "empty"),
    }
    return {**{name: (file, "") for name, file in packed.items()}, **left_out}
