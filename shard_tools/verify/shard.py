"""Reads one shard whole: checks every byte, every sample against its row of the index, and its .idx."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from shard_tools.base.errors import StorageError, one_line
from shard_tools.base.parsing import load_json
from shard_tools.base.storage import retried
from shard_tools.base.text import plural
from shard_tools.images import EXTENSIONS, MAX_BYTES, ImageError, content_hash, fingerprint
from shard_tools.index import Index
from shard_tools.manifest import Shard
from shard_tools.tar import BLOCK, MAX_LABEL_BYTES, Member, TarError, blocks, members, padding
from shard_tools.verify.files import key_of
from shard_tools.verify.report import Report
from shard_tools.without_torch import without_torch

LABELS = ("gender", "age", "subject", "group", "row")
"""Labels that the JSON of a sample and its row of the index both have."""
CHUNK = 1 << 22


@dataclass(frozen=True)
class ShardTask:
    """A shard to read, and where its rows are in the index of its split."""

    shard: Shard
    index: Path | None
    """None if the index is not valid: then the samples are not compared with it."""
    start: int
    """First row of the shard in the index; it has as many as the shard has samples."""


class Sample(NamedTuple):
    """An image and the JSON that follows it in a tar, of the same key."""

    key: str
    extension: str
    image: Member
    label: Member

    def idx_line(self) -> bytes:
        """The sample's line in DALI's index, as wds2idx writes it."""
        image, label = (f"{m.offset} {m.size} {m.name}" for m in (self.image, self.label))
        return f"{self.extension} {image} json {label}\n".encode()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_shard(root: Path, task: ShardTask) -> Report:
    """The problems of one shard of the data set in `root`, each with the sample and the byte."""
    path = root / task.shard.file
    try:
        return retried(partial(_check_shard, path, task), path)
    except (OSError, StorageError) as error:
        report = Report()
        if isinstance(error, OSError):
            report.add(error.filename or path, f"cannot be read: {error.strerror}")
        else:
            report.add(path, str(error))
        return report


def _check_shard(path: Path, task: ShardTask) -> Report:
    """`check_shard` of the shard at `path`; raises OSError where it cannot be read."""
    report = Report()
    idx = path.with_suffix(".idx")
    if sha256_of(path) != task.shard.sha256:
        report.add(path, "its SHA-256 is not the manifest's: it has changed since it was packed")
    rows = None
    if task.index:
        index = np.asarray(np.load(task.index, mmap_mode="r"))  # rows of a memmap object are slow to get at
        rows = index[task.start : task.start + task.shard.samples]
        if np.any(rows["offset"][1:] < rows["offset"][:-1]):
            rows = rows[np.argsort(rows["offset"])]
    with path.open("rb", CHUNK) as file, idx.open("rb") if idx.is_file() else nullcontext() as idx_file:
        _Shard(path, file, idx_file, rows, report).check()
    return report


class _Shard:
    """A shard that is being read."""

    def __init__(
        self, path: Path, file: BinaryIO, idx_file: BinaryIO | None, rows: Index | None, report: Report
    ) -> None:
        self.path = path
        self.file = file
        self.idx_file = idx_file
        self.rows = rows
        # As signed numbers, which mix with Python's without becoming floats; a damaged one stays a large one.
        self.offsets = np.zeros(0, np.int64) if rows is None else np.minimum(rows["offset"], 1 << 62).astype(np.int64)
        self.report = report

    def problem(self, what: str) -> None:
        self.report.add(self.path, what)

    def check(self) -> None:
        before = self.report.count
        names = self.check_samples()
        if self.report.count == before:
            self.check_keys(names)

    def check_keys(self, names: list[str]) -> None:
        """Reports samples that the library webdataset does not read, by the names of a sound tar's members."""
        expected = [name.partition(".")[0] for name in names[::2]]
        try:
            read = keys_read(names)
        except ValueError as error:
            self.problem(f"webdataset does not read it: {one_line(error)}")
            return
        if read != expected:
            lost = min(set(expected) - set(read), default="")
            self.problem(
                f"webdataset reads {len(read)} of its {plural(len(expected), 'sample')}, it does not read {lost!r}"
            )

    def check_samples(self) -> list[str]:
        """Reports what is wrong with the samples; returns the names of their members."""
        names: list[str] = []
        idx_lines = enumerate(self.idx_file, -1) if self.idx_file else None
        number = 0  # of the sample in the shard
        for sample in self.samples():
            names += (sample.image.name, sample.label.name)
            if self.rows is not None:
                while number < len(self.rows) and self.offsets[number] < sample.image.offset:
                    self.lost(number)
                    number += 1
                if number == len(self.rows) or self.offsets[number] != sample.image.offset:
                    self.problem(f"{at(sample.image)} is not in the index")
                    continue
                row = dict(zip(self.rows.dtype.names or (), self.rows[number].item(), strict=True))
                if row["key"] != sample.key.encode():
                    self.problem(f"{at(sample.image)} is sample {key_of(self.rows, number)} in the index")
                    number += 1
                    continue
                if row["length"] != sample.image.size:
                    self.problem(
                        f"{at(sample.image)} has {plural(sample.image.size, 'byte')}, {row['length']:,} in the index"
                    )
                self.check_image(sample, row["content"], row["appearance"])
                self.check_label(sample, row)
            else:
                self.check_image(sample, None, 0)
                self.check_label(sample, None)
            if idx_lines and next((line for n, line in idx_lines if n == number), b"") != sample.idx_line():
                self.report.add(self.path.with_suffix(".idx"), f"line {number + 2} is not that of {at(sample.image)}")
            number += 1
        if self.rows is not None:
            for row_number in range(number, len(self.rows)):
                self.lost(row_number)
            number = len(self.rows)
        if idx_lines and any(n >= number for n, _ in idx_lines):
            self.report.add(
                self.path.with_suffix(".idx"), f"it has more lines than the {plural(number, 'sample')} of its tar"
            )
        return names

    def lost(self, number: int) -> None:
        assert self.rows is not None
        self.problem(f"sample {key_of(self.rows, number)} at byte {self.offsets[number]} is not there, or not whole")

    def samples(self) -> Iterator[Sample]:
        """The samples of the tar in order; reports members that make none."""
        image: Member | None = None
        for member in self.members():
            key, _, extension = member.name.partition(".")
            if extension == "json" and image and image.name.partition(".")[0] == key:
                yield Sample(key, image.name.partition(".")[2], image, member)
                image = None
            elif extension == "json":
                self.problem(f"{at(member)} does not follow the image of its sample")
            else:
                if image:
                    self.problem(f"{at(image)} is not followed by the JSON of its sample")
                image = member if extension in EXTENSIONS.values() else None
                if not image:
                    self.problem(f"{at(member)} is neither an image nor JSON")
        if image:
            self.problem(f"{at(image)} is not followed by the JSON of its sample")

    def members(self) -> Iterator[Member]:
        """The members of the tar; after damage, from the next sample on that the index knows."""
        size = self.path.stat().st_size
        position = 0
        while position < size or not position:
            try:
                for member in members(self.file, position):
                    yield member
                    position = member.offset + BLOCK * (blocks(member.size) - 1)
                return
            except TarError as error:
                self.problem(str(error))
            following = np.searchsorted(self.offsets, position + BLOCK, "right")
            if following == len(self.offsets):
                return
            position = int(self.offsets[following]) - BLOCK

    def content(self, member: Member) -> bytes:
        self.file.seek(member.offset)
        block = self.file.read(BLOCK * (blocks(member.size) - 1))
        if block[member.size :] != padding(member.size):
            self.problem(f"{at(member)} is followed by other bytes than zeros, up to the next block of {BLOCK}")
        return block[: member.size]

    def check_label(self, sample: Sample, row: dict[str, Any] | None) -> None:
        if sample.label.size > MAX_LABEL_BYTES:
            self.problem(f"{at(sample.label)} has {sample.label.size} bytes, more than labels take")
            return
        try:
            labels = load_json(self.content(sample.label))
        except ValueError as error:
            self.problem(f"{at(sample.label)} is no JSON: {error}")
            return
        if not isinstance(labels, dict):
            self.problem(f"{at(sample.label)} is no JSON object")
            return
        if not row:
            return
        for name in LABELS:
            labelled, packed = labels.get(name), text_or_number(row[name])
            if name == "age" and isinstance(labelled, float) and abs(labelled) < 1e6:
                labelled = float(np.float32(labelled))
            if labelled != packed or isinstance(labelled, bool):
                self.problem(f"{at(sample.label)} has {name} {labelled!r}, the index {packed!r}")

    def check_image(self, sample: Sample, content: int | None, appearance: int) -> None:
        if sample.image.size > MAX_BYTES:
            self.problem(f"{at(sample.image)} has {sample.image.size} bytes, more than {MAX_BYTES}")
            return
        encoded = self.content(sample.image)
        try:
            seen = fingerprint(encoded, appearance=appearance != 0)
        except ImageError as error:
            changed = content is not None and content_hash(encoded) != content
            self.problem(f"{at(sample.image)}{' has changed since it was packed:' if changed else ':'} {error}")
            return
        if content is not None and seen.content != content:
            self.problem(f"{at(sample.image)} has changed since it was packed")
        elif seen.appearance != appearance:
            self.problem(f"{at(sample.image)} has another appearance than in the index")
        if seen.extension != sample.extension:
            self.problem(f"{at(sample.image)} is a {seen.extension}")


def keys_read(names: Iterable[str]) -> list[str]:
    """The keys of the samples that the library webdataset makes of members with these names."""
    with without_torch():
        from webdataset.tariterators import group_by_keys

    return [sample["__key__"] for sample in group_by_keys({"fname": n, "data": b"", "__url__": ""} for n in names)]


def text_or_number(value: Any) -> Any:
    """A value of the index as JSON has it."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def at(member: Member) -> str:
    """Names a member and its place."""
    return f"{member.name} at byte {member.offset}"
