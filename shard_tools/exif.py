"""Which way up an image is by its EXIF blocks: the one rule for packing and for every decoder, which is DALI's."""

from __future__ import annotations

import struct

from PIL import Image

DAMAGED = -1
"""Instead of an orientation: one is stated in a block that is damaged, of which decoders make different things."""

_PREFIX = b"Exif\0\0"  # of a block in a JPEG or PNG, as Pillow has it, before the TIFF header
_ORIENTATION = 0x112
_SIZES = {2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}  # bytes of a value by its type; 1 of the others
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientations(encoded: bytes, image: Image.Image) -> set[int]:
    """What the EXIF blocks of an image that was loaded from `encoded` state: 1 (upright) to 8, or DAMAGED."""
    exif: bytes = image.info.get("exif", b"")
    if image.format == "WEBP":
        blocks = [exif] if encoded[12:16] == b"VP8X" and encoded[20] & 8 else []  # its header announces a block
    elif image.format == "PNG":
        blocks = [exif.removeprefix(_PREFIX)]
    else:
        segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
        blocks = [data[len(_PREFIX) :] for name, data in segments if name == "APP1" and data.startswith(_PREFIX)]
    return {stated for block in blocks if (stated := _stated(block))}


def upright(image: Image.Image, stated: set[int]) -> Image.Image:
    """An image, turned as its EXIF blocks state; as it is if they state different things."""
    how = min(stated) if len(stated) == 1 else 1
    return image.transpose(_UPRIGHT[how]) if how in _UPRIGHT else image


def _stated(exif: bytes) -> int:
    """The orientation in a block that begins with its TIFF header; 0 if there is none, as in one that is no TIFF.

    The first entry of that tag counts, whatever its type.
    """
    if len(exif) < 10 or exif[:4] not in (b"II*\0", b"MM\0*"):
        return 0
    order = "<" if exif.startswith(b"II") else ">"
    begin = int(struct.unpack_from(f"{order}I", exif, 4)[0]) + 2
    if begin > len(exif):
        return 0
    found, is_whole = 0, True
    for at in range(begin, begin + 12 * int(struct.unpack_from(f"{order}H", exif, begin - 2)[0]), 12):
        if at + 12 > len(exif):
            is_whole = False
            break
        tag, kind, count, offset = struct.unpack_from(f"{order}HHII", exif, at)
        size = _SIZES.get(kind, 1) * count
        is_whole = is_whole and (size <= 4 or offset + size <= len(exif))
        if tag == _ORIENTATION and not found:
            value = int(struct.unpack_from(f"{order}H", exif, at + 8)[0])
            found = value if value in _UPRIGHT else 1
    return found if is_whole or found < 2 else DAMAGED
