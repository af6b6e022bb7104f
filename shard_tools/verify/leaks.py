"""Checks for leaks: pictures and subjects in two splits or two data sets, and keys of two samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import StorageError
from shard_tools.base.progress import progress
from shard_tools.base.storage import retried
from shard_tools.base.text import plural
from shard_tools.images import MAX_BYTES, ImageError, fingerprint
from shard_tools.index import Index
from shard_tools.manifest import Manifest, Shard
from shard_tools.verify.files import DataSet, key_of
from shard_tools.verify.report import Report
from shard_tools.workers import Workers

Column = npt.NDArray[np.generic]

EXAMPLES = 3
KINDS = {
    "content": ("byte-identical image is", "byte-identical images are"),
    "appearance": (
        "picture that looks the same (byte-identical or not) is",
        "pictures that look the same (byte-identical or not) are",
    ),
    "subject": ("subject is", "subjects are"),
}
NOT_FOUND = (
    "not found by this: other crops of the same photograph, pictures changed so much that their difference hash is "
    "another, and people without a subject or with several"
)


@dataclass(frozen=True)
class Side:
    """One of two splits that are compared: its index, and the columns in which it must share nothing."""

    path: Path
    index: Index
    columns: dict[str, Column]
    """By name, each of shape (samples,); zero or empty is unknown."""


@dataclass(frozen=True)
class LookTask:
    """A shard whose images are to be hashed, and their offsets and lengths from the index."""

    shard: Shard
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]


def check_keys(data: DataSet, report: Report) -> None:
    """Reports keys that more than one sample of a data set has."""
    if not data.indexes:
        return
    keys = np.sort(np.concatenate([index["key"] for index in data.indexes.values()]))
    twice = _distinct(keys[1:][keys[1:] == keys[:-1]])
    if len(twice):
        first = ", ".join(key.decode("utf-8", "backslashreplace") for key in twice[:EXAMPLES].tolist())
        report.add(
            data.root, f"{plural(len(twice), 'key is', 'keys are')} of more than one sample: {first}{_more(len(twice))}"
        )


def compared(sets: Sequence[DataSet], *, subjects: bool = True) -> str:
    """By what the splits of a data set, or several data sets, were compared; `subjects`: by those, if any is known."""
    indexes = [index for data in sets for index in data.indexes.values()]
    looked = len(sets) > 1 or (
        bool(sets[0].manifest.options.get("near_duplicates")) and any(index["appearance"].any() for index in indexes)
    )
    known = subjects and all(has_subjects(data.indexes.values()) for data in sets)
    kinds = ["bytes", *(["picture"] if looked else []), *(["subject"] if known else [])]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def check_splits(data: DataSet, report: Report) -> str:
    """Reports what two splits of one data set share; returns a remark on what could not be checked, or nothing.

    Near duplicates count if packing was to keep them in one split.
    """
    promised = bool(data.manifest.options.get("near_duplicates"))
    names = ["content", "subject", *(["appearance"] if promised else [])]
    sides = [
        Side(data.root / split, index, {name: np.ascontiguousarray(index[name]) for name in names})
        for split, index in data.indexes.items()
    ]
    for first, second in combinations(sides, 2):
        _compare(first, second, report)
    if promised and len(sides) > 1 and not any(side.columns["appearance"].any() for side in sides):
        return f"{data.root} was packed without looking at the images: near duplicates were not searched for"
    return ""


def check_data_sets(first: DataSet, second: DataSet, workers: int, report: Report) -> str:
    """Reports what is in both of two data sets; returns a remark on what could not be compared, or nothing.

    Where an index has no appearances, the images are decoded for them. Subjects are compared in one numbering only.
    """
    comparable = same_numbering(first.manifest, second.manifest)
    sides = [_sides(data, comparable, workers, report) for data in (first, second)]
    for a in sides[0]:
        for b in sides[1]:
            _compare(a, b, report)
    if comparable or not all(has_subjects(data.indexes.values()) for data in (first, second)):
        return ""
    return not_compared(first.manifest, second.manifest)


def same_numbering(first: Manifest, second: Manifest) -> bool:
    """Whether equal ids of subjects mean the same person in two data sets."""
    return first.numbering == second.numbering != ""


def not_compared(first: Manifest, second: Manifest) -> str:
    """What to say of two data sets whose subjects were not compared."""
    return (
        f"subjects were not compared: {first.root} is from {first.source}, {second.root} is from {second.source}, and "
        "it is not known whether equal ids in them mean the same people"
    )


def has_subjects(indexes: Iterable[Index]) -> bool:
    """Whether any image of the splits with these indexes has a known subject."""
    return any((index["subject"] != b"").any() for index in indexes)


def looks_of(root: Path, task: LookTask) -> tuple[npt.NDArray[np.uint64], Report]:
    """The hash of the appearance of every image of a shard of the data set in `root`, and the problems.

    uint64 of shape (samples,), 0 for an image that does not decode.
    """
    path = root / task.shard.file
    try:
        return retried(partial(_looks, path, task), path)
    except (OSError, StorageError) as error:
        report = Report()
        report.add(path, f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error))
        return np.zeros(len(task.offsets), dtype=np.uint64), report


def _looks(path: Path, task: LookTask) -> tuple[npt.NDArray[np.uint64], Report]:
    """`looks_of` the shard at `path`; raises OSError where it cannot be read."""
    found = np.zeros(len(task.offsets), dtype=np.uint64)
    report = Report()
    with path.open("rb") as file:
        for row, (offset, length) in enumerate(zip(task.offsets.tolist(), task.lengths.tolist(), strict=True)):
            file.seek(min(offset, task.shard.bytes))
            try:
                found[row] = fingerprint(file.read(min(length, MAX_BYTES + 1))).appearance
            except ImageError as error:
                report.add(path, f"the image at byte {offset} was not compared: {error}")
    return found, report


def _sides(data: DataSet, subjects: bool, workers: int, report: Report) -> list[Side]:
    names = ["content", *(["subject"] if subjects else []), "appearance"]
    sides = [
        Side(data.root / split, index, {name: np.ascontiguousarray(index[name]) for name in names})
        for split, index in data.indexes.items()
    ]
    if not any(side.columns["appearance"].any() for side in sides):
        tasks = []
        for split, index in data.indexes.items():
            start = 0
            for shard in data.manifest.splits[split].shards:
                rows = index[start : start + shard.samples]
                tasks.append(LookTask(shard, rows["offset"].copy(), rows["length"].copy()))
                start += shard.samples
        looks = []
        count = sum(len(side.index) for side in sides)
        with Workers(data.root, workers) as pool, progress(f"looking at {data.root}", count) as advance:
            for found, problems in pool.map(looks_of, tasks):
                looks.append(found)
                report.include(problems)
                advance(len(found))
        every = np.concatenate(looks) if looks else np.zeros(0, np.uint64)
        bounds = np.cumsum([len(side.index) for side in sides])[:-1]
        for side, column in zip(sides, np.split(every, bounds), strict=True):
            side.columns["appearance"] = column
    return sides


def _compare(first: Side, second: Side, report: Report) -> None:
    """Reports what two splits share, a line a kind."""
    for line in shared(first, second):
        report.add(f"{first.path} and {second.path}", line)


def shared(first: Side, second: Side) -> Iterator[str]:
    """What two splits share, a line a kind, with numbers and examples."""
    for name, words in KINDS.items():
        if name not in first.columns:
            continue
        a, b = first.columns[name], second.columns[name]
        both = np.intersect1d(_distinct(a), _distinct(b), assume_unique=True)
        if not len(both):
            continue
        rows_a, rows_b = (np.flatnonzero(_among(both, column)) for column in (a, b))
        examples = [
            f"{key_of(first.index, rows_a[np.argmax(a[rows_a] == value)])} and "
            f"{key_of(second.index, rows_b[np.argmax(b[rows_b] == value)])}"
            for value in both[:EXAMPLES]
        ]
        yield (
            f"{plural(len(both), *words)} in both, as {plural(len(rows_a), 'sample')} and "
            f"{plural(len(rows_b), 'sample')}: "
            f"{', '.join(examples)}{_more(len(both))}"
        )


def _distinct(values: Column) -> Column:
    """The values other than zero or empty, sorted, each once. (np.unique takes ten times as long for millions.)"""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    distinct: Column = ordered[first & (ordered != np.zeros(1, ordered.dtype))]
    return distinct


def _among(ordered: Column, values: Column) -> npt.NDArray[np.bool_]:
    """Which of `values` are among the sorted ones, of which there is at least one."""
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    among: npt.NDArray[np.bool_] = ordered[at] == values
    return among


def _more(count: int) -> str:
    return f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
