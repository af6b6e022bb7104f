"""Checks that an encoded image decodes, fingerprints it to find its copies, and re-encodes it on request."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from xxhash import xxh3_64_intdigest

from shard_tools.base.errors import one_line
from shard_tools.disagreements import disagreement
from shard_tools.exif import orientations, upright

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp"}
MAX_PIXELS = 50_000_000
MAX_BYTES = 256_000_000
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is less
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of metadata and palettes that nobody reads


class ImageError(Exception):
    """Why an image cannot be used."""


class Fingerprint(NamedTuple):
    """What identifies copies of an image: `content` of the encoded bytes, `appearance` of the pixels."""

    extension: str
    content: int
    """XXH3 hash of the encoded bytes, 64 bits."""
    appearance: int
    """XXH3 hash, 64 bits, of a difference hash of 110: which gray pixels are darker than the second one to the right,
    in 12x8, and than the one below, in 5x7. 0 if not asked for, or if no pixel is. It finds all copies of equal bytes,
    and of pictures that were encoded or cropped anew about three in ten (`python -m tests.benchmarks.copies`)."""
    turned: bool = False
    """Whether an EXIF tag rotates the stored image. Decoders, DALI among them, and `reencode` apply it."""


@contextmanager
def opened(encoded: bytes) -> Iterator[Image.Image]:
    """The image, its header read and its size checked; whatever goes wrong inside is an ImageError."""
    if not encoded:
        raise ImageError("the file is empty")
    if len(encoded) > MAX_BYTES:
        raise ImageError(f"it has {len(encoded)} bytes, more than {MAX_BYTES}")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format not in EXTENSIONS:
                raise ImageError(f"it is {image.format}, not one of {', '.join(EXTENSIONS)}")
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("it is not an image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"it has more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise ImageError(f"it does not decode: {one_line(error)}") from None


def content_hash(encoded: bytes) -> int:
    """XXH3 hash of the encoded bytes, 64 bits: it finds copies and accidental changes, at the speed of memory."""
    return xxh3_64_intdigest(encoded)


def extension_of(encoded: bytes) -> str:
    """File name extension by the image's first bytes, nothing decoded; raises ImageError if they are no image's."""
    if not encoded:
        raise ImageError("the file is empty")
    if encoded.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "webp"
    if encoded.startswith(b"BM"):
        return "bmp"
    raise ImageError("it is not an image")


def fingerprint(encoded: bytes, appearance: bool = True) -> Fingerprint:
    """Decodes the whole image and fingerprints it; raises ImageError if it cannot be used, by every decoder alike.

    Of a JPEG the luminance alone is turned into pixels: all of its code is read, at two thirds of the price.
    """
    with opened(encoded) as image:
        extension = EXTENSIONS[image.format or ""]
        image.draft("L", None)
        image.load()
        stated = orientations(encoded, image)
        if reason := disagreement(encoded, image, stated):
            raise ImageError(f"{reason}: save it anew, or pack with --quality 95")
        look = _difference_hash(upright(image, stated)) if appearance else 0
    return Fingerprint(extension, content_hash(encoded), look, bool(stated - {1}))


def readable(encoded: bytes) -> tuple[bytes, str]:
    """The file as it is, or as PNG where not every decoder sees the picture that Pillow sees, and the reason for that.

    A JPEG that has its end is not decoded: its decoder will find whatever else is wrong. Raises ImageError if the image
    cannot be used.
    """
    with opened(encoded) as image:
        if EXTENSIONS[image.format or ""] != "jpg" or encoded.rfind(_JPEG_END) < encoded.rfind(_JPEG_SCAN):
            image.load()
        stated = orientations(encoded, image)
        reason = disagreement(encoded, image, stated)
        if not reason:
            return encoded, ""
        buffer = io.BytesIO()
        upright(in_8_bits(image), stated).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), reason


def reencode(encoded: bytes, shorter_side: int | None, quality: int) -> bytes:
    """The image as a JPEG, upright, RGB or gray, its shorter side at most `shorter_side` pixels.

    An alpha channel is dropped, as decoders that ask for RGB do. Raises ImageError if the image cannot be used.
    """
    with opened(encoded) as image:
        if shorter_side and min(image.size) > shorter_side:
            scale = shorter_side / min(image.size)
            box = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
            image.draft(None, (2 * box[0], 2 * box[1]))  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that does
            plain = in_8_bits(image).resize(box, Image.Resampling.BICUBIC)
        else:
            plain = in_8_bits(image)
        buffer = io.BytesIO()
        upright(plain, orientations(encoded, image)).save(buffer, "JPEG", quality=quality, exif=b"", icc_profile=None)
    return buffer.getvalue()


def decoded(encoded: bytes) -> Image.Image:
    """The image in 8 bits, upright, gray or RGB; raises ImageError if it cannot be used."""
    with opened(encoded) as image:
        plain = in_8_bits(image)
        return upright(plain, orientations(encoded, image))


def in_8_bits(image: Image.Image) -> Image.Image:
    """The image in 8 bits, gray if it is, else RGB."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("L", "LA", "1"):
        return image.convert("L")
    return image.convert("RGB")


def _difference_hash(image: Image.Image) -> int:
    gray = image if image.mode == "L" else image.convert("L")
    rows = np.asarray(gray.resize((12, 8), Image.Resampling.BILINEAR))
    columns = np.asarray(gray.resize((5, 7), Image.Resampling.BILINEAR))
    darker = np.concatenate([(rows[:, :-2] < rows[:, 2:]).ravel(), (columns[:-1] < columns[1:]).ravel()])
    return xxh3_64_intdigest(np.packbits(darker).tobytes()) if darker.any() else 0
