"""Image files in which NVIDIA DALI and Pillow see different pictures, or only Pillow sees one (measured with DALI 2.4).

DALI, the default backend of training, is the judge: what it does not read as Pillow does is not packed as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from shard_tools.exif import DAMAGED

_BLOCK = 1 << 20
_MARK, _SCAN, _ALONE = 0xFF, 0xDA, (0x01, *range(0xD0, 0xD9))
"""Of a JPEG: what a marker begins with, the one of the picture's own bytes, and those that have no length."""
_KNOWN_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of each pass of an interlaced PNG."""


def disagreement(encoded: bytes, image: Image.Image, stated: set[int]) -> str:
    """Why DALI does not see the picture that Pillow sees in a file that Pillow has loaded; empty if it does.

    `stated` are its `orientations`.
    """
    if DAMAGED in stated:
        return "its EXIF block is damaged and states an orientation"
    if len(stated) > 1:
        return "its EXIF blocks state different orientations"
    match image.format:
        case "PNG":
            return _png(memoryview(encoded))
        case "WEBP":
            return _webp(encoded)
        case "BMP":
            # At byte 14 stands the size of the header; Windows' has 40 bytes or more, and the depth at byte 28.
            is_windows = struct.unpack_from("<I", encoded, 14)[0] >= 40
            return "it is a BMP of 16 bits a pixel" if is_windows and encoded[28] == 16 else ""
        case _:
            if image.mode == "CMYK" and "adobe" not in image.info:
                return "it is a CMYK JPEG without Adobe's mark, a negative for some decoders"
            return _jpeg(encoded)


def _jpeg(encoded: bytes) -> str:
    """DALI wants each segment before the picture to begin where the one before it ends; Pillow looks for the next."""
    at = 2
    while at + 4 <= len(encoded) and encoded[at + 1] != _SCAN:
        if encoded[at] != _MARK:
            return "it is a JPEG with other bytes between its segments"
        if encoded[at + 1] == _MARK:  # a marker may be filled up
            at += 1
        elif encoded[at + 1] in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return ""


def _webp(encoded: bytes) -> str:
    """DALI looks for the EXIF block that the header announces, and forgets that chunks of an odd length are padded."""
    if encoded[12:16] != b"VP8X" or not encoded[20] & 8:
        return ""
    at = 12
    while at + 8 <= len(encoded):
        if encoded[at : at + 4] == b"EXIF":
            return ""
        at += 8 + int(struct.unpack_from("<I", encoded, at + 4)[0])
    return "it is a WebP whose EXIF block follows a chunk of an odd length, or is missing"


def _png(encoded: memoryview) -> str:
    """DALI reads a PNG up to its end mark, checks what matters, and wants every row. It may crash at a second eXIf."""
    data, exifs, at = [], 0, 8
    while at + 12 <= len(encoded):
        size, kind = struct.unpack_from(">I4s", encoded, at)
        content = encoded[at + 8 : at + 8 + size]
        end = at + 12 + size
        if kind == b"IEND":
            break
        if end > len(encoded):
            return "it is a PNG that is cut short"
        if not kind[0] & 0x20:  # a capital letter: a chunk that must be understood
            if kind not in _KNOWN_CHUNKS:
                return f"it is a PNG with an unknown chunk {kind.decode('latin-1')!r}"
            if zlib.crc32(encoded[at + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end], "big"):
                return f"it is a PNG with a wrong checksum of its chunk {kind.decode()}"
        exifs += kind == b"eXIf"
        if kind == b"IDAT":
            data.append(content)
        at = end
    else:
        return "it is a PNG without its end, the chunk IEND"
    if exifs > 1:
        return "it is a PNG with two EXIF blocks"
    width, height, depth, colours, interlaced = struct.unpack_from(">IIBB2xB", encoded, 16)
    needed = sum(_pass_sizes(width, height, depth * _CHANNELS[colours], interlaced))
    if _inflated(data, needed) < needed:
        return "it is a PNG that lacks rows"
    return ""


def _inflated(data: list[memoryview], enough: int) -> int:
    """Bytes of compressed data when decompressed, of which little is held at a time and none counted past enough."""
    inflate = zlib.decompressobj()
    size = 0
    for block in data:
        rest: bytes | memoryview = block
        while len(rest) and not inflate.eof:
            size += len(inflate.decompress(rest, _BLOCK))
            if size > enough:  # at just enough, the checksum behind it is still checked
                return size
            rest = inflate.unconsumed_tail
    return size + len(inflate.flush())


def _pass_sizes(width: int, height: int, bits: int, interlaced: int) -> Iterator[int]:
    """Bytes of each pass of a PNG of so many bits a pixel: a byte and the pixels of each row."""
    for column, row, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            yield rows * (1 + -(-columns * bits // 8))
