"""Looks at one encoded image: does it decode, and which pictures is it a copy of."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from shard_tools.commands import one_line

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp"}
MAX_PIXELS = 50_000_000


class ImageError(Exception):
    """Why an image cannot be used."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells copies of a picture: `content` of the encoded bytes, `appearance` of the decoded picture."""

    extension: str
    content: int
    """First 64 bits of the SHA-256 of the encoded bytes."""
    appearance: int
    """64-bit difference hash: which of 9x8 gray pixels is darker than its right neighbour."""


def fingerprint(encoded: bytes) -> Fingerprint:
    """Decodes the whole image and fingerprints it; raises ImageError if it cannot be used."""
    if not encoded:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format not in EXTENSIONS:
                raise ImageError(f"it is {image.format}, not one of {', '.join(EXTENSIONS)}")
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            gray = image.convert("L")
            extension = EXTENSIONS[image.format]
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("it is not an image") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise ImageError(f"it does not decode: {one_line(error)}") from None
    pixels = np.asarray(gray.resize((9, 8), Image.Resampling.BILINEAR))
    bits = np.packbits(pixels[:, :-1] < pixels[:, 1:])
    return Fingerprint(
        extension=extension,
        content=int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big"),
        appearance=int.from_bytes(bits.tobytes(), "big"),
    )
