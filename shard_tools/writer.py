"""Writes shards: the tar, DALI's .idx beside it, its rows of the index. Equal samples give equal bytes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import dtype_to_descr

from shard_tools import tar
from shard_tools.base.documents import read_json, restored
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_file, write_whole
from shard_tools.base.storage import retried
from shard_tools.catalogue import Catalogue
from shard_tools.images import ImageError, content_hash
from shard_tools.index import Index, index_dtype
from shard_tools.keys import with_row
from shard_tools.look import EXTENSION_NAMES, Work
from shard_tools.manifest import Shard, Split
from shard_tools.plan import Flags, SplitPlan
from shard_tools.sources import Record
from shard_tools.split import Numbers

_decode = json.JSONDecoder().raw_decode
FLUSH = 1_000_000
"""Bytes that are collected before they are hashed and written."""


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to write: its images by their numbers in the catalogue, and which of them get their row in the key."""

    split: str
    number: int
    samples: Numbers
    repeated: Flags
    digest: str
    """Of the catalogue that the numbers are of."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:06d}"

    def written(self, work: Work) -> Path:
        """Where it is noted that the shard is written, and its rows of the index wait for those of the others."""
        return work.directory / "written" / self.digest[:16]


def jobs_of(plan: SplitPlan, digest: str) -> Iterator[ShardJob]:
    """The shards of a split."""
    for number in range(len(plan.bounds) - 1):
        part = slice(plan.bounds[number], plan.bounds[number + 1])
        yield ShardJob(plan.name, number, plan.samples[part], plan.repeated[part], digest)


def write_shard(work: Work, job: ShardJob) -> Shard:
    """Writes one shard unless that is done. Raises UserError if an image is no longer what it was when looked at."""
    out = work.directory.parent / job.split
    path, note = out / f"{job.name}.tar", job.written(work) / f"{job.name}.json"
    if note.exists():
        again = "remove the directory and pack again"
        shard = restored(Shard, read_json(note, again, again), note, again)
        if path.exists() and path.stat().st_size == shard.bytes:
            return shard
    with Catalogue(work.directory) as catalogue, whole_file(path) as file:
        sha256, idx, index = _write_samples(work, job, catalogue, file)
        size = file.tell()
    write_whole(path.with_suffix(".idx"), "".join([f"v1.2 {len(idx)}\n", *idx]).encode())
    shard = Shard(file=f"{job.split}/{path.name}", samples=len(idx), bytes=size, sha256=sha256)
    buffer = io.BytesIO()
    np.save(buffer, index)
    write_whole(note.with_suffix(".npy"), buffer.getvalue())
    write_whole(note, json.dumps(asdict(shard)).encode())
    return shard


def _write_samples(work: Work, job: ShardJob, catalogue: Catalogue, file: BinaryIO) -> tuple[str, list[str], Index]:
    """Writes the tar of a shard; returns its SHA-256, the lines of its .idx and its rows of the index."""
    rows = catalogue.rows(job.samples.tolist())
    lengths, lines = rows["length"].astype(np.int64), rows["line"].astype(np.int64)
    label_places = tar.BLOCK * (1 + tar.blocks(lengths))  # after the first header, as the image is
    ends = np.cumsum(tar.BLOCK * (tar.blocks(lengths) + tar.blocks(lines)))
    offsets = np.r_[0, ends[:-1]] + tar.BLOCK
    sha256 = hashlib.sha256()
    parts: list[bytes] = []
    idx: list[str] = []
    keys: list[bytes] = []
    labels: list[dict[str, Any]] = []
    flushed = 0
    for chunk, repeated, at, extension, content, length, offset, line, label_offset, end in zip(
        catalogue.chunks(job.samples),
        job.repeated.tolist(),
        rows["at"].tolist(),
        [EXTENSION_NAMES[place] for place in rows["extension"].tolist()],
        rows["content"].tolist(),
        lengths.tolist(),
        offsets.tolist(),
        catalogue.lines(rows),
        (offsets - tar.BLOCK + label_places).tolist(),
        ends.tolist(),
        strict=True,
    ):
        label, _ = _decode(line.decode())
        key = work.source.key(label["source"])
        if repeated:
            key = with_row(key, label["row"])
        image_name, label_name = f"{key}.{extension}", f"{key}.json"
        parts += (
            tar.header(image_name.encode(), length),
            _read(work, chunk, Record(label["row"], label["source"], at=at), length, content),
            tar.padding(length),
            tar.header(label_name.encode(), len(line)),
            line,
            tar.padding(len(line)),
        )
        idx.append(f"{extension} {offset} {length} {image_name} json {label_offset} {len(line)} {label_name}\n")
        keys.append(key.encode())
        labels.append(label)
        if end - flushed >= FLUSH:
            _flush(parts, sha256, file)
            flushed = end
    parts.append(tar.END)
    _flush(parts, sha256, file)

    texts = {name: [label[name].encode() for label in labels] for name in ("subject", "group")} | {"key": keys}
    widths = (max(map(len, texts[name])) for name in ("key", "subject", "group"))
    index = np.empty(len(rows), dtype=index_dtype(*widths))
    index["shard"] = job.number
    index["offset"] = offsets
    for name in ("length", "gender", "content", "appearance"):
        index[name] = rows[name]
    for name in ("age", "row"):
        index[name] = [label[name] for label in labels]
    for name, values in texts.items():
        index[name] = values
    return sha256.hexdigest(), idx, index


def _read(work: Work, chunk: int, record: Record, length: int, content: int) -> bytes:
    """The image of a record of a chunk, checked to be the one that was looked at."""
    try:
        if work.keeps:
            with work.kept(chunk).open("rb") as file:
                encoded = os.pread(file.fileno(), length, record.at)
        else:
            encoded = retried(partial(work.source.read, record), record.name)
        if len(encoded) == length and content_hash(encoded) == content:
            return encoded
        what = "is not what it was when it was looked at"
    except (OSError, ImageError) as error:
        what = f"could be read before but not now: {one_line(error)}"
    for path in work.directory.glob(f"looked/{chunk:06d}-*"):
        path.unlink()
    raise UserError(f"{record.name} {what}; run the same command again to look at it again")


def _flush(parts: list[bytes], sha256: hashlib._Hash, file: BinaryIO) -> None:
    block = b"".join(parts)
    sha256.update(block)
    file.write(block)
    parts.clear()
    # The disk starts to write while the next block is made, so that there is little left to wait for at the end.
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_index(work: Work, plan: SplitPlan, shards: Sequence[Shard], jobs: Sequence[ShardJob]) -> Split:
    """Joins the index rows of a split's shards, whose files are all written; the split is complete."""
    parts = [job.written(work) / f"{job.name}.npy" for job in jobs]
    dtypes = [np.load(part, mmap_mode="r").dtype for part in parts]
    dtype = index_dtype(*(max(dtype[name].itemsize for dtype in dtypes) for name in ("key", "subject", "group")))
    path = work.directory.parent / plan.name / "index.npy"
    head = io.BytesIO()
    description = {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": (len(plan.samples),)}
    np.lib.format.write_array_header_1_0(head, description)
    sha256 = hashlib.sha256()
    with whole_file(path) as file:
        for block in itertools.chain([head.getvalue()], (np.load(part).astype(dtype).tobytes() for part in parts)):
            sha256.update(block)
            file.write(block)
    return Split(
        name=plan.name,
        samples=len(plan.samples),
        counts=plan.counts,
        shards=tuple(shards),
        index_sha256=sha256.hexdigest(),
    )
