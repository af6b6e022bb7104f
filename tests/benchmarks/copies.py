"""How many pictures that a directory holds twice have the same appearance (`shard_tools.images.Fingerprint`).

    python -m tests.benchmarks.copies DIR

Copies are pairs of images of other bytes whose pixels correlate, gray and 32x32, by more than 0.97. In crops of aligned
faces this is no measure: other people's correlate as much there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image

from shard_tools.images import ImageError, decoded, fingerprint

CORRELATED = 0.97
AT_ONCE = 2000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Counts copies that are found and missed."""

    images: tyro.conf.Positional[Path]
    """Directory of images."""


def pattern(image: Image.Image) -> npt.NDArray[np.float32]:
    """Gray pixels at 32x32 less their mean, as a vector of length 1: products of two are correlations."""
    gray = image.convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    pixels: npt.NDArray[np.float32] = np.asarray(gray).astype(np.float32).ravel()
    pixels -= pixels.mean()
    return pixels / np.float32(max(float(np.linalg.norm(pixels)), 1e-9))


def main(options: Options) -> None:
    seen, patterns = [], []
    for path in sorted(options.images.iterdir()):
        try:
            seen.append(fingerprint(path.read_bytes()))
        except ImageError:
            continue
        patterns.append(pattern(decoded(path.read_bytes())))
    content, appearance = np.array([(one.content, one.appearance) for one in seen], dtype=np.uint64).T
    vectors = np.stack(patterns)
    found = missed = others = 0
    for begin in range(0, len(vectors), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        pairs = (content[part, None] != content) & (np.arange(len(vectors)) > np.arange(len(vectors))[part, None])
        copies = vectors[part] @ vectors.T > CORRELATED
        alike = (appearance[part, None] == appearance) & (appearance != 0)
        found += int(np.count_nonzero(pairs & copies & alike))
        missed += int(np.count_nonzero(pairs & copies & ~alike))
        others += int(np.count_nonzero(pairs & ~copies & alike))
    print(
        f"{len(vectors)} images: {found} pairs of copies found, {missed} missed, {others} pairs of others look the same"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
