"""Landmarks of faces from a file: CSV, TSV, Parquet or a list, by the names of its columns.

Known are CelebA's list_landmarks_celeba.txt, VGGFace2's loose_landmark_*.csv (NAME_ID, P1X, P1Y, ..., P5Y), tables of
RetinaFace's landmarks, and tables of eyes alone, as they are given with MORPH. Which eye and which corner of the mouth
is the left one is seen from the coordinates: authors disagree about whose left is meant.
"""

from __future__ import annotations

import re
from array import array
from itertools import chain, islice
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from shard_tools.align.warp import Points
from shard_tools.base.errors import UserError
from shard_tools.images import ImageError
from shard_tools.sources.image_files import IMAGE_SUFFIXES
from shard_tools.sources.paths import SAMPLE, find_paths
from shard_tools.sources.tabular import TableFile, open_table

IMAGE = ("image", "file", "filename", "path", "name", "nameid", "imageid", "photo", "img", "key")
"""Names of the column with the image, in small letters and without signs."""
COORDINATE = re.compile(r"(?:landmarks?|lmk?|kps?)?([a-z]+\d?)([xy])")
POINTS = (
    ("lefteye", "eyeleft", "leye", "eyel", "p1"),
    ("righteye", "eyeright", "reye", "eyer", "p2"),
    ("nose", "nosetip", "p3"),
    ("leftmouth", "mouthleft", "lmouth", "mouthl", "leftmouthcorner", "mouthcornerleft", "p4"),
    ("rightmouth", "mouthright", "rmouth", "mouthr", "rightmouthcorner", "mouthcornerright", "p5"),
)
"""Names of the points, in the order of the template."""
EYES = 2


class LandmarkFile:
    """The faces of each image that a file lists, in about 50 bytes a face."""

    def __init__(self, path: Path, images: Path | None) -> None:
        """Reads all of the file; UserError if it cannot be read, or has no column for images or for eyes.

        Its images are paths below `images`, or else the names that a source has for them.
        """
        self.name = path.name
        table = open_table(path)
        image, places = columns_of(table)
        self.points = len(places) // 2
        rows = table.rows((image, *places))
        first = list(islice(rows, SAMPLE))
        below = find_paths(images, [row.values[0] for row in first if row.values[0]]).below if images else str
        hashes, numbers = array("Q"), array("f")
        for row in chain(first, rows):
            hashes.append(_hash(below(row.values[0])))
            numbers.extend(map(_number, row.values[1:]))
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.uint64)[order]
        self._faces = np.frombuffer(numbers, np.float32).reshape(-1, self.points, 2)[order]
        self.digest = f"{xxh3_64_intdigest(self._hashes.tobytes() + self._faces.tobytes()):016x}"
        """Of what it says."""

    def faces(self, name: str) -> list[Points]:
        """The landmarks of the faces in an image: (5, 2), or (2, 2) of eyes, (x, y), left to right as seen.

        Raises ImageError if there are none.
        """
        begin, end = np.searchsorted(self._hashes, np.uint64(_hash(name)) + np.arange(2, dtype=np.uint64)).tolist()
        faces = self._faces[begin:end].astype(np.float64)
        if not len(faces):
            raise ImageError(f"it has no line in {self.name}")
        if not np.isfinite(faces).all():
            raise ImageError(f"it has a landmark in {self.name} that is no number")
        if not np.ptp(faces[:, :EYES, 0], axis=1).all():
            raise ImageError(f"its eyes in {self.name} are one above the other")
        return [_left_to_right(face) for face in faces]


def columns_of(table: TableFile) -> tuple[str, list[str]]:
    """The column of the images, and those of the coordinates, x and y of each point in the order of the template.

    Five points, or the eyes alone. Raises UserError if there is no column for images or for eyes.
    """
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in table.columns}
    image = next((plain[name] for name in IMAGE if name in plain), None)
    found: dict[tuple[int, str], str] = {}
    for name, column in plain.items():
        if match := COORDINATE.fullmatch(name):
            number = next((number for number, names in enumerate(POINTS) if match[1] in names), None)
            if number is not None:
                found.setdefault((number, match[2]), column)
    for count in (len(POINTS), EYES):
        places = [found.get((number, axis)) for number in range(count) for axis in "xy"]
        if image and all(places):
            return image, [place for place in places if place]
    missing = "an image" if not image else "the eyes"
    raise UserError(
        f"{table.path} has no column of {missing}: name columns image, left_eye_x, left_eye_y, right_eye_x, "
        "right_eye_y, and nose_x ... right_mouth_y if they are known; it has "
        f"{', '.join(table.columns[:12])}{table.comment_note}"
    )


def _left_to_right(face: Points) -> Points:
    """The same points with each pair in the order in which it is seen."""
    order = list(range(len(face)))
    for a, b in ((0, 1), (3, 4))[: len(face) // 2]:
        if face[a, 0] > face[b, 0]:
            order[a], order[b] = b, a
    return face[order]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _hash(name: str) -> int:
    """64 bits of a name without its suffix, which some lists leave out; never the largest number."""
    stem = name[: -len(suffix)] if (suffix := Path(name).suffix) and suffix.lower() in IMAGE_SUFFIXES else name
    return xxh3_64_intdigest(stem.encode(errors="surrogateescape")) >> 1
