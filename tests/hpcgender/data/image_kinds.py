"""One picture as every kind of file that decoders are given."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from hpcgender.data.shards import Encoded


def picture() -> Image.Image:
    """A picture of 120x90 pixels with edges, ramps and noise, no two of whose orientations look alike."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:120, 0:90]
    pixels = np.stack([2 * y, 2 * x + 20, 128 + 60 * np.sin(x / 5 + y / 9)], axis=2) + random.normal(0, 6, (120, 90, 3))
    pixels[20:50, 10:30] = (200, 30, 60)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> Encoded:
    file = io.BytesIO()
    image.save(file, format, **options)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def kinds(face: Image.Image) -> dict[str, Encoded]:
    """The files, by what they are."""
    alpha = face.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(face.size))
    deep = Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257 + 100)
    palette = face.quantize(256)
    return {
        "JPEG": encode(face, "JPEG", quality=90),
        "JPEG 4:4:4": encode(face, "JPEG", quality=90, subsampling=0),
        "JPEG progressive": encode(face, "JPEG", quality=90, progressive=True),
        "JPEG gray": encode(face.convert("L"), "JPEG"),
        "JPEG CMYK": encode(face.convert("CMYK"), "JPEG", quality=90),
        "PNG": encode(face, "PNG"),
        "PNG gray": encode(face.convert("L"), "PNG"),
        "PNG 16 bit": encode(deep, "PNG"),
        "PNG palette": encode(palette, "PNG"),
        "PNG palette, transparent": encode(palette, "PNG", transparency=bytes(range(256))),
        "PNG alpha": encode(alpha, "PNG"),
        "PNG gray alpha": encode(alpha.convert("LA"), "PNG"),
        "WebP": encode(face, "WEBP", quality=90),
        "WebP lossless, alpha": encode(alpha, "WEBP", lossless=True, exact=True),
        "BMP": encode(face, "BMP"),
    }
