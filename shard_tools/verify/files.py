"""Checks of a data set that read no tar: manifest, files and their sizes, index."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.text import plural
from shard_tools.index import Index, fault_of
from shard_tools.manifest import CLASSES, MANIFEST, UNFINISHED, Manifest, Shard, Split, read_manifest
from shard_tools.verify.report import Report

QUARANTINE = "quarantine"


@dataclass
class DataSet:
    """A data set with a valid manifest, and the valid indices of its splits."""

    manifest: Manifest
    indexes: dict[str, Index] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.manifest.root

    @property
    def samples(self) -> int:
        return sum(split.samples for split in self.manifest.splits.values())

    @property
    def shards(self) -> int:
        return sum(len(split.shards) for split in self.manifest.splits.values())


def read_data_set(root: Path, report: Report) -> DataSet | None:
    """The data set in `root` as far as it is valid; the rest is reported. None if its manifest is not."""
    if not (root / MANIFEST).exists():
        report.add(root, f"it has no {MANIFEST}, so packing was not finished: give the same pack command again")
        return None
    try:
        manifest = read_manifest(root)
    except UserError as error:
        report.add(root / MANIFEST, str(error).removeprefix(f"{root / MANIFEST} "))
        return None
    if manifest.classes != CLASSES:
        report.add(root / MANIFEST, f"is damaged, its classes are not {', '.join(CLASSES)}: pack the data set again")
        return None
    data = DataSet(manifest)
    for split in manifest.splits.values():
        index = _read_index(root / split.name / "index.npy", split, report)
        if index is not None:
            data.indexes[split.name] = index
    return data


def check_files(data: DataSet, report: Report) -> None:
    """Reports missing files, files of another size than in the manifest, unfinished ones, and ones not in it."""
    root = data.root
    if (root / UNFINISHED).exists():
        report.add(root / UNFINISHED, "packing was not finished: give the same pack command again")
    for split in data.manifest.splits.values():
        for shard in split.shards:
            _check_shard_files(root / shard.file, shard, report)
        if split.name in data.indexes:
            _check_index(root / split.name / "index.npy", split, data.indexes[split.name], report)
        women, men = (split.counts[name] for name in CLASSES)
        if data.manifest.options.get("balance") == "equal" and women != men:
            report.add(root / split.name, f"it was packed to be balanced but has {women} female and {men} male")
    tars = {root / shard.file for split in data.manifest.splits.values() for shard in split.shards}
    known = tars | {tar.with_suffix(".idx") for tar in tars}
    for directory in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if directory.name not in (UNFINISHED, QUARANTINE):
            for path in sorted(path for path in directory.iterdir() if path.suffix in (".tar", ".idx")):
                if path not in known:
                    report.add(directory, f"{path.name} is not in the manifest: remove it")
    _check_quarantine(root / QUARANTINE / "quarantine.csv", data.manifest.quarantined, report)


def _read_index(path: Path, split: Split, report: Report) -> Index | None:
    """The index, memory-mapped, if it is valid and of the right length."""
    try:
        index = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except FileNotFoundError:
        report.add(path, "is missing")
        return None
    except Exception as error:  # a damaged header is read by a parser of Python code, which raises any exception
        report.add(path, f"cannot be read: {one_line(error)}")
        return None
    if fault := fault_of(index, split.samples):
        report.add(path, fault)
        return None
    if size != index.offset + index.nbytes:
        report.add(path, f"has {size} bytes, its header says {index.offset + index.nbytes}")
    return index


def _check_index(path: Path, split: Split, index: Index, report: Report) -> None:
    """Reports where the index disagrees with the manifest or with itself."""
    genders = index["gender"]
    for value, name in enumerate(CLASSES):
        count = int(np.count_nonzero(genders == value))
        if count != split.counts[name]:
            report.add(path, f"has {plural(count, f'{name} sample')}, the manifest says {split.counts[name]:,}")
    sizes = np.array([shard.samples for shard in split.shards], dtype=np.int64)
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.repeat(np.array([shard.bytes for shard in split.shards], dtype=np.uint64), sizes)
    offsets, lengths = index["offset"].astype(np.uint64), index["length"].astype(np.uint64)
    backwards = (offsets[1:] <= offsets[:-1]) & (numbers[1:] == numbers[:-1])
    for what, wrong in (
        ("in another shard than the manifest says", index["shard"] != numbers),
        ("not behind the one before", np.concatenate([np.zeros(1, bool), backwards])[: len(index)]),
        ("not within the shard", (offsets >= ends) | (lengths > ends - offsets)),
        ("of no gender that there is", (genders < -1) | (genders >= len(CLASSES))),
    ):
        if wrong.any():
            rows = np.flatnonzero(wrong)
            samples = plural(len(rows), "sample is", "samples are")
            report.add(path, f"{samples} {what}, first {key_of(index, rows[0])} in row {rows[0]}")


def key_of(index: Index, row: int | np.intp) -> str:
    """The key in a row of the index, as text whatever its bytes are."""
    return bytes(index["key"][row]).decode("utf-8", "backslashreplace")


def _check_shard_files(path: Path, shard: Shard, report: Report) -> None:
    """Reports a tar that is missing or of the wrong size, and an .idx that is missing or has another count."""
    if not path.is_file():
        report.add(path, "is missing")
    elif (size := path.stat().st_size) != shard.bytes:
        report.add(path, f"has {plural(size, 'byte')}, the manifest says {shard.bytes:,}")
    idx = path.with_suffix(".idx")
    if not idx.is_file():
        report.add(idx, "is missing")
        return
    with idx.open("rb") as file:
        first = file.readline(64)
    if first != idx_header(shard.samples):
        report.add(idx, f"begins with {first!r}, not {idx_header(shard.samples)!r}")


def idx_header(samples: int) -> bytes:
    """First line of DALI's index of a tar, as wds2idx writes it."""
    return b"v1.2 %d\n" % samples


def _check_quarantine(path: Path, quarantined: int, report: Report) -> None:
    """Reports a list of left-out images of another length than in the manifest; the list may be missing."""
    if not path.is_file():
        return
    try:
        with path.open(newline="", errors="replace") as file:
            rows = sum(1 for _ in csv.reader(file)) - 1
    except csv.Error as error:
        report.add(path, f"cannot be read: {one_line(error)}")
        return
    if rows != quarantined:
        report.add(path, f"lists {plural(rows, 'image')}, the manifest says {quarantined:,}")
