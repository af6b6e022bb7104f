"""Which records of a RecordIO file are images, and of whom: InsightFace's layout, im2rec's, with or without an idx.

InsightFace's record 0 has the labels [N + 1, N + 1 + identities] and no image. Images have the keys 1 to N. Then comes
a record for each identity with the labels [first key, end key) and no image. Elsewhere every record is an image.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.base.progress import track
from shard_tools.base.text_files import read_text
from shard_tools.recordio import Header, Ints, RecordError, RecordFile, read_index

EXACT = 2**24
"""Below it every whole number is a float32. Labels are float32, so keys beyond are never taken from them."""
PROBES = 64
"""Records, spread over the file, that are read to check an idx or InsightFace's ranges."""


@dataclass(frozen=True)
class Listing:
    """The images of a RecordIO file in the order of their keys."""

    keys: Ints
    """int64 of shape (images,), ascending."""
    offsets: Ints
    """Byte offset of each image's record, int64 of shape (images,)."""
    claimed: int
    """Number of images by InsightFace's record 0; without it, of those found."""
    first_labels: npt.NDArray[np.float32] | None
    """First label of each image as its own record has it, NaN if that is damaged; None if they were not read."""
    identities: npt.NDArray[np.int32] | None
    """The identity of each image, -1 if its record is damaged; None if the file has none."""
    damaged: dict[int, str]
    """What is wrong with the image at a position of `keys`, as far as its record has been read."""
    lost: dict[int, str]
    """What is wrong at a byte offset where a record should be; only if there is no idx."""


def list_images(file: RecordFile, idx: Path | None, *, identities: bool, first_labels: bool) -> Listing:
    """The images of `file`, going by the idx if there is one, else through all records.

    `identities` says that first labels are identities, even if the file lacks InsightFace's record 0; `first_labels`
    asks for these as well. Raises UserError if the idx is damaged or of another file, or if there are no records.
    """
    keys, offsets, lost = from_idx(file, idx) if idx else from_records(file)
    people = None
    stop = first_without_image(file, keys, offsets) if len(keys) and keys[0] == 0 else None
    if stop is not None:
        end = int(np.searchsorted(keys, stop))
        people = from_ranges(file, keys, offsets, end)
        keys, offsets, identities = keys[1:end], offsets[1:end], True
    if not len(keys):
        raise UserError(f"no images in {file.path}: is it a RecordIO file of MXNet with image records?")
    labels, damaged = None, dict[int, str]()
    if first_labels or (identities and people is None):
        labels, damaged = own_labels(file, offsets)
    if identities and people is None and labels is not None:
        people = as_identities(labels, damaged)
    return Listing(keys, offsets, len(keys) if stop is None else stop - 1, labels, people, damaged, lost)


def from_idx(file: RecordFile, idx: Path) -> tuple[Ints, Ints, dict[int, str]]:
    """Keys, ascending, and byte offsets of all records by the idx."""
    keys, offsets = sorted_by_key(*read_index(idx), idx)
    for wrong in np.flatnonzero((offsets < 0) | (offsets >= file.size) | (offsets % 4 != 0))[:1]:
        raise UserError(
            f"{idx}: record {keys[wrong]} is not in {file.path}: no record can be at byte {offsets[wrong]} of its "
            f"{file.size}; copy both files again"
        )
    probes = np.unique(np.linspace(0, len(keys) - 1, PROBES).astype(np.int64))
    problems = []
    for key, offset in zip(keys[probes].tolist(), offsets[probes].tolist(), strict=True):
        header = header_or_damage(file, offset)
        if isinstance(header, RecordError):
            problems.append(str(header))
        elif header.id not in (0, key):  # 0: the writer gave no ids
            problems.append(f"the record for key {key} has the id {header.id}")
    if 2 * len(problems) > len(probes):
        raise UserError(f"{idx} is not the idx of {file.path}: {problems[0]}; move it away to go by the records alone")
    return keys, offsets, {}


def from_records(file: RecordFile) -> tuple[Ints, Ints, dict[int, str]]:
    """Keys, ascending, and byte offsets of all whole records, found by going through the file; what is wrong where."""
    found, ids, lost = array("q"), array("Q"), {}
    for offset in file.offsets():
        header = header_or_damage(file, offset)
        if isinstance(header, RecordError):
            lost[offset] = str(header)
        else:
            ids.append(header.id)
            found.append(offset)
    offsets = np.frombuffer(found, np.int64)
    keys = np.frombuffer(ids, np.int64)
    if len(keys) > 1 and not keys.any():  # the writer gave no ids: MXNet's rec2idx counts then, too
        keys = np.arange(len(keys))
    return (*sorted_by_key(keys, offsets, file.path), lost)


def sorted_by_key(keys: Ints, offsets: Ints, path: Path) -> tuple[Ints, Ints]:
    """Both by ascending key; UserError if one occurs twice. `path` is where they are from."""
    if not np.all(keys[1:] > keys[:-1]):
        order = np.argsort(keys)
        keys = keys[order]
        offsets = offsets[order]
        for twice in np.flatnonzero(keys[1:] == keys[:-1])[:1]:
            raise UserError(f"{path} has two records of key {keys[twice]}: write a new idx with MXNet's rec2idx.py")
    return keys, offsets


def first_without_image(file: RecordFile, keys: Ints, offsets: Ints) -> int | None:
    """The key of InsightFace's first identity, N + 1; None if record 0, the first one here, is an image like others."""
    try:
        header, image = file.read(int(offsets[0]))
    except RecordError:
        return None
    if header.flag != 2 or image:
        return None
    stop = int(header.labels[0])
    if stop < EXACT:
        return stop
    # The label is rounded, but from the first identity on no record has an image.
    spacing = int(np.spacing(np.float32(stop)))
    near = slice(*np.searchsorted(keys, (stop - spacing, stop + spacing)))
    for key, offset in zip(keys[near].tolist(), offsets[near].tolist(), strict=True):
        with suppress(RecordError):
            if not file.read(offset)[1]:
                return int(key)
    return stop + spacing


def from_ranges(file: RecordFile, keys: Ints, offsets: Ints, stop: int) -> npt.NDArray[np.int32] | None:
    """The identity of each image by the identities' records, which begin at position `stop` of `keys`.

    int32 of shape (stop - 1,): record 0 is left out. None if they are not to be trusted: they are missing or damaged,
    inexact, or differ from the images' own labels. Then those have to be read.
    """
    try:
        ranges = [file.header(offset).labels for offset in offsets[stop:].tolist()]
    except RecordError:
        return None
    if not ranges or any(len(labels) != 2 for labels in ranges):
        return None
    first, end = np.array(ranges).T
    if end[-1] >= EXACT or first[0] != 1 or np.any(first[1:] != end[:-1]) or np.any(end < first):
        return None
    if stop < 2 or keys[stop - 1] >= end[-1]:
        return None
    people = (np.searchsorted(first, keys[1:stop], side="right") - 1).astype(np.int32)
    probes = np.unique(np.linspace(0, len(people) - 1, PROBES).astype(np.int64))
    for person, offset in zip(people[probes].tolist(), offsets[1 + probes].tolist(), strict=True):
        header = header_or_damage(file, offset)  # one damaged image is no evidence against the ranges
        if isinstance(header, Header) and header.labels[0] != person:
            return None
    return people


def own_labels(file: RecordFile, offsets: Ints) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """First label of each record, NaN where it is damaged, and what is wrong there, by position."""
    labels = np.full(len(offsets), np.nan, np.float32)
    damaged: dict[int, str] = {}
    for position, offset in enumerate(track(map(int, offsets), len(offsets), "reading labels of records")):
        header = header_or_damage(file, offset)
        if isinstance(header, RecordError):
            damaged[position] = str(header)
        else:
            labels[position] = header.labels[0]
    return labels, damaged


def header_or_damage(file: RecordFile, offset: int) -> Header | RecordError:
    """The header of the record at a byte offset, or what is wrong with it."""
    try:
        return file.header(offset)
    except RecordError as error:
        return error


def as_identities(labels: npt.NDArray[np.float32], damaged: dict[int, str]) -> npt.NDArray[np.int32]:
    """First labels as numbers of identities, -1 where they are none; adds those to `damaged`."""
    fine = (labels >= 0) & (labels < EXACT) & (labels == np.floor(labels))
    for position in np.flatnonzero(~fine).tolist():
        damaged.setdefault(position, f"its label {labels[position]:g} is not the number of an identity")
    return np.where(fine, labels, -1).astype(np.int32)


def number_of_identities(rec: Path) -> int | None:
    """The number of identities in InsightFace's `property`, `identities,height,width`; None if there is none."""
    path = rec.with_name("property")
    if not path.is_file():
        return None
    words = read_text(path).strip().split(",")
    if len(words) != 3 or not all(word.strip().isdigit() for word in words):
        raise UserError(f"{path} is not `identities,height,width`, as in 85742,112,112: mend it or move it away")
    return int(words[0])
