"""What finding faces costs, and how exact it is: images per second of one core, faces found, where the eyes are.

    python -m tests.benchmarks.align [--images DIR ...] [--count 250]

On aligned photos such as LFW-a's, where eyes lie in one place, the spread of the found eyes around their median place
is the error of the detector and of the alignment together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from shard_tools.align.crop import align_encoded
from shard_tools.align.detector import detector_name, find_faces
from shard_tools.align.recipe import Recipe
from shard_tools.images import decoded
from shard_tools.sources.image_files import ImageFiles
from tests.conftest import REAL_DATA


@dataclass(kw_only=True)
class Options:
    """Finds and crops faces of directories of images."""

    images: tuple[Path, ...] = (REAL_DATA / "lfw_a", REAL_DATA / "gender_dataset_face", REAL_DATA / "utkface")
    """Directories."""
    count: int = 250
    """Images of each, drawn at random."""


def row(root: Path, count: int) -> list[str]:
    """The numbers of one directory."""
    names = np.array(ImageFiles(root, root / "none").names)
    chosen = np.random.default_rng(0).permutation(len(names))[:count]
    files = [(root / name).read_bytes() for name in names[chosen]]
    images = [np.asarray(decoded(file).convert("RGB")) for file in files]
    recipe = Recipe(template="arcface", size=112, margin=0.0, faces="largest", landmarks="")
    find_faces(images[0])
    start = time.process_time()
    found = [find_faces(image) for image in images]
    seconds = time.process_time() - start
    faces = [
        max(some, key=lambda face: float(np.prod(face.box[2:] - face.box[:2]))).landmarks for some in found if some
    ]
    start = time.process_time()
    for file, some in zip(files, found, strict=True):
        if some:
            align_encoded(file, recipe, [face.landmarks for face in some])
    cropping = time.process_time() - start
    eyes = np.array(faces)[:, :2]
    between = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=1)
    spread = np.linalg.norm(eyes - np.median(eyes, axis=0), axis=2) / np.median(between)
    return [
        root.name,
        f"{len(images)}",
        f"{len(faces) / len(images):.1%}",
        f"{sum(len(some) > 1 for some in found) / len(images):.1%}",
        f"{len(images) / seconds:.0f}",
        f"{len(faces) / cropping:.0f}",
        f"{np.median(between):.0f} px",
        f"{np.median(spread):.1%}",
    ]


if __name__ == "__main__":
    options = tyro.cli(Options)
    table = Table(title=f"{detector_name()}, per second of one core", title_justify="left")
    columns = (
        "",
        "images",
        "a face",
        "several",
        "found/s of a core",
        "cropped/s of a core",
        "between eyes",
        "spread of eyes",
    )
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for root in options.images:
        table.add_row(*row(root, options.count))
    Console(width=120).print(table)
