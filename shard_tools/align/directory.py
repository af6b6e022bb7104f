"""Crops the faces of a directory, in chunks of images: each chunk's findings are a file, so that no work is done twice.

The crops are written as the chunk is done, the list of its findings last. `alignment.json`, which holds the recipe, is
the last file of all: its presence means that every image is cropped or in quarantine.csv with the reason.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools import unfinished
from shard_tools.align.crop import align_encoded
from shard_tools.align.detector import detector_name
from shard_tools.align.landmark_file import LandmarkFile
from shard_tools.align.recipe import ALIGNMENT, CROPS, FORM, FROM_FILE, Recipe
from shard_tools.align.sheet import PAIRS, alignment_sheet
from shard_tools.base.documents import parse_json, read_document, read_json, write_document
from shard_tools.base.errors import UserError
from shard_tools.base.files import sync_files, whole_text, write_file
from shard_tools.base.progress import progress
from shard_tools.base.storage import unwritable
from shard_tools.base.text import plural, printable
from shard_tools.commands.align import UNFINISHED, AlignConfig
from shard_tools.images import ImageError
from shard_tools.look import Chunk, read_image
from shard_tools.sources.image_files import ImageFiles, read_file
from shard_tools.workers import Workers, part_of

CHUNK = 128
"""Images of a chunk: what a killed process has to do again, at most."""
LANDMARKS = tuple(
    f"{name}_{axis}" for name in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
)
"""Columns of landmarks.csv, left and right as seen."""
ANEW = "remove the directory, and align again"

Finding = dict[str, Any]
"""Of an image: its `image`; the `reason` why it has no crop, or its number of `faces` and the `landmarks` of one."""


@dataclass(frozen=True)
class Work:
    """What the processes share."""

    images: Path
    out: Path
    recipe: Recipe
    quality: int
    landmarks: LandmarkFile | None

    @property
    def note(self) -> dict[str, Any]:
        """What decides the crops, as JSON has it, but for what is in the images."""
        return {
            "images": str(self.images.resolve()),
            "landmarks": self.landmarks.digest if self.landmarks else "",
            "recipe": asdict(self.recipe),
            "quality": self.quality,
        }

    def done(self, chunk: Chunk) -> Path:
        """The findings of a chunk, a line of JSON each; it is there if the chunk is done."""
        return self.out / UNFINISHED / "done" / f"{chunk.name}.jsonl"


def align_directory(config: AlignConfig) -> None:
    """Crops the images of `config.images`, or the part of them that `config.task` says; raises UserError."""
    part, parts = part_of(config.task)
    recipe = config.recipe_by(FROM_FILE if config.landmarks else detector_name())
    landmarks = LandmarkFile(config.landmarks, config.images) if config.landmarks else None
    work = Work(config.images, config.out, recipe, config.quality, landmarks)
    names = list_images(config)
    chunks = [
        Chunk(number, hashlib.sha256(json.dumps(some).encode()).hexdigest(), len(some))
        for number, some in enumerate(chunked(names))
    ]
    already = f"{config.out} was aligned already"
    if is_aligned(work, chunks) and not (config.out / UNFINISHED).exists():
        print(already)
        return
    with unfinished.held(config.out, part, parts, name=UNFINISHED):
        if is_aligned(work, chunks):  # killed after the last step but one
            shutil.rmtree(config.out / UNFINISHED)
            print(already)
            return
        begin(work)
        mine = [
            (chunk, some) for chunk, some in zip(chunks, chunked(names), strict=True) if chunk.number % parts == part
        ]
        with Workers(work, config.workers) as workers, progress("aligning", sum(c.size for c, _ in mine)) as advance:
            for size in workers.map(crop_chunk, mine):
                advance(size)
        if parts > 1:
            total = sum(chunk.size for chunk, _ in mine)
            aligned = f"aligned part {part + 1} of {parts}, {plural(total, 'image')}"
            print(f"{aligned}; after all parts: the same command without --task")
            return
        finish(work, chunks)


def chunked(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The names in chunks."""
    return (names[begin : begin + CHUNK] for begin in range(0, len(names), CHUNK))


def list_images(config: AlignConfig) -> list[str]:
    """Paths of the images below `config.images`; UserError if there are none."""
    files = ImageFiles(config.images, config.out)
    not_taken = files.not_taken()
    if not files.names:
        raise UserError(f"no images in {config.images}{f': {not_taken}' if not_taken else ''}")
    if not_taken:
        print(not_taken)
    return files.names


def is_aligned(work: Work, chunks: Sequence[Chunk]) -> bool:
    """Whether this work on the images as they are named now has come to its end; UserError if its file is damaged."""
    path = work.out / ALIGNMENT
    return path.exists() and read_document(path, FORM, ANEW, ANEW).get("made_of") == made_of(work, chunks)


def made_of(work: Work, chunks: Sequence[Chunk]) -> str:
    """Identifies the work and the names of its images."""
    return hashlib.sha256(json.dumps([work.note, [chunk.name for chunk in chunks]]).encode()).hexdigest()


def begin(work: Work) -> None:
    """Notes what is being done, or compares it with the note; UserError if the directory is another work's."""
    note = work.out / UNFINISHED / "work.json"
    if not note.exists():
        write_file(note, json.dumps(work.note, indent=1).encode())
    if read_json(note, ANEW, ANEW) != work.note:
        raise UserError(
            f"{work.out} holds unfinished work on other images or with other options: give the same ones to resume it, "
            "or remove the directory"
        )
    (work.out / UNFINISHED / "done").mkdir(exist_ok=True)


def crop_chunk(work: Work, job: tuple[Chunk, Sequence[str]]) -> int:
    """Crops the images of a chunk unless that is done, and returns their number."""
    chunk, names = job
    if not work.done(chunk).exists():
        findings = [crop_file(work, name) for name in names]
        try:
            sync_files(work.out)
        except OSError as error:
            raise unwritable(error, work.out) from None
        write_file(work.done(chunk), "".join(json.dumps(finding) + "\n" for finding in findings).encode())
    return chunk.size


def crop_file(work: Work, name: str) -> Finding:
    """Writes the crop of one image, and returns what is found in it."""
    try:
        encoded = read_image(partial(read_file, work.images / name), name)
        faces = work.landmarks.faces(name) if work.landmarks else None
        crop = align_encoded(encoded, work.recipe, faces, work.quality, Path(name).suffix)
    except ImageError as error:
        return {"image": name, "reason": str(error)}
    path = work.out / CROPS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, crop.encoded, synced=False)  # `crop_chunk` does that
    return {"image": name, "faces": crop.faces, "landmarks": crop.landmarks.ravel().tolist()}


def findings_of(work: Work, chunks: Sequence[Chunk]) -> Iterator[Finding]:
    """The findings of all images, in their order."""
    for chunk in chunks:
        path = work.done(chunk)
        for line in path.read_bytes().splitlines():
            yield parse_json(line, path, ANEW)


def finish(work: Work, chunks: Sequence[Chunk]) -> None:
    """Everything after all images are done: the lists, and the recipe last."""
    missing = sum(not work.done(chunk).exists() for chunk in chunks)
    if missing:
        raise UserError(
            f"{work.out} lacks {plural(missing, 'part')} of the images as they are now: give the same command again"
        )
    reasons = Counter(finding["reason"] for finding in findings_of(work, chunks) if "reason" in finding)
    images, left_out = sum(chunk.size for chunk in chunks), reasons.total()
    if left_out == images:
        shutil.rmtree(work.out / UNFINISHED)
        with suppress(OSError):  # something else is in it
            work.out.rmdir()
        raise UserError(f"none of {plural(images, 'image')} has a crop, most because {reasons.most_common(1)[0][0]}")
    remove_leftovers(work.out / CROPS, {f["image"] for f in findings_of(work, chunks) if "reason" not in f})
    several = 0
    with whole_text(work.out / "landmarks.csv") as file, whole_text(work.out / "quarantine.csv") as quarantine:
        found, lost = (csv.writer(text, lineterminator="\n") for text in (file, quarantine))
        found.writerow(("image", "faces", *LANDMARKS[: 2 * work.landmarks.points if work.landmarks else None]))
        lost.writerow(("image", "reason"))
        for finding in findings_of(work, chunks):
            if "reason" in finding:
                lost.writerow((escaped(finding["image"]), finding["reason"]))
            else:
                several += finding["faces"] > 1
                found.writerow((escaped(finding["image"]), finding["faces"], *finding["landmarks"]))
    if not left_out:
        (work.out / "quarantine.csv").unlink()
    cropped = images - left_out
    sheet = alignment_sheet(work.images, work.out / CROPS, shown(work, chunks, cropped), work.recipe, cropped)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_file(work.out / "sheet.png", buffer.getvalue())
    counts = {"cropped": cropped, "several_faces": several, "left_out": left_out}
    write_document(
        work.out / ALIGNMENT, FORM, {"recipe": asdict(work.recipe), "made_of": made_of(work, chunks), **counts}
    )
    shutil.rmtree(work.out / UNFINISHED)
    print(f"{plural(images, 'image')}: {cropped:,} cropped, {several:,} with several faces")
    if left_out:
        print(f"{plural(left_out, 'image')} left out, listed in {work.out / 'quarantine.csv'}:")
        for reason, count in reasons.most_common(5):
            print(printable(f"  {count}: {reason}"))
    print(f"crops in {work.out / CROPS}, some of them in {work.out / 'sheet.png'}")


def shown(work: Work, chunks: Sequence[Chunk], cropped: int) -> list[tuple[str, int, list[float]]]:
    """Some of the images with a crop, evenly among all: name, faces, landmarks."""
    numbers = set(np.linspace(0, cropped - 1, PAIRS).round().astype(int).tolist())
    found = (finding for finding in findings_of(work, chunks) if "reason" not in finding)
    return [(f["image"], f["faces"], f["landmarks"]) for number, f in enumerate(found) if number in numbers]


def escaped(name: str) -> str:
    """A name as UTF-8 has it, what is none as escapes."""
    return name.encode(errors="backslashreplace").decode()


def remove_leftovers(root: Path, names: set[str]) -> None:
    """Removes what a killed process left beside the crops of these names."""
    for directory, _, files in os.walk(root):
        for file in files:
            path = Path(directory, file)
            if path.relative_to(root).as_posix() not in names:
                path.unlink()
