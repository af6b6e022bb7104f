"""Looks at every image of a source, in chunks: each chunk's findings are a file, so that no work is done twice.

The source is listed first, into one file of records a chunk. Looking at a chunk leaves two files named after its
number and the digest of its records: `.jsonl` with the labels as they will lie in the tar, and `.rows` with a row of
`SEEN` for each image, renamed into place last. A chunk whose files exist is done; if its records change, so does its
digest.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from shard_tools.align.crop import align_encoded
from shard_tools.align.landmark_file import LandmarkFile
from shard_tools.align.recipe import Recipe
from shard_tools.align.warp import Points
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_file, write_whole
from shard_tools.base.storage import retried
from shard_tools.images import (
    EXTENSIONS,
    Fingerprint,
    ImageError,
    content_hash,
    extension_of,
    fingerprint,
    reencode,
)
from shard_tools.sources import SPLIT_NAMES, ImageDirectory, Record, Source

CHUNK = 1024
"""Images of a chunk: what a killed process has to look at again, at most. A streamed source has a file a chunk."""
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors where there is no such file."""
EXTENSION_NAMES = tuple(sorted(set(EXTENSIONS.values())))

SEEN = np.dtype(
    [
        ("content", "<u8"),  # hash of the encoded bytes
        ("appearance", "<u8"),  # hash of the picture, 0 unknown
        ("subject", "<u8"),  # hash of the subject, 0 unknown
        ("key", "<u8"),  # hash of the key
        ("at", "<i8"),  # where the source finds the image, or its offset in the chunk's file of kept images
        ("start", "<u8"),  # of its line of labels
        ("line", "<u4"),  # length of that line, bytes
        ("length", "<u4"),  # of the encoded image, bytes
        ("gender", "i1"),
        ("split", "i1"),  # the source's own: place in SPLIT_NAMES, -1 none
        ("extension", "u1"),  # place in EXTENSION_NAMES
        ("turned", "?"),  # by its EXIF tag
        ("rejected", "?"),  # then its line of labels says why
    ]
)
Seen = npt.NDArray[np.void]

_quoted = json.encoder.encode_basestring
_encode = json.JSONEncoder(separators=(",", ":")).encode  # in ASCII: a file's name may be no UTF-8


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring records of a source: their number among the chunks, their digest, and how many are listed."""

    number: int
    digest: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.number:06d}-{self.digest[:16]}"


@dataclass(frozen=True)
class Work:
    """What the processes share: the source, and the directory of the unfinished pack."""

    source: Source
    directory: Path

    def listed(self, chunk: int) -> Path:
        """The records of a chunk: a JSON list of lists."""
        return self.directory / "listed" / f"{chunk:06d}.json"

    def looked(self, chunk: Chunk, suffix: str) -> Path:
        """The findings of a chunk: `.rows` or `.jsonl`."""
        return self.directory / "looked" / f"{chunk.name}{suffix}"

    def kept(self, chunk: int) -> Path:
        """The images of a chunk as they will be packed, one after the other."""
        return self.directory / "kept" / f"{chunk:06d}.bin"

    @cached_property
    def recipe(self) -> Recipe | None:
        """How the images that are packed are cropped."""
        return self.source.recipe()

    @property
    def reencodes(self) -> bool:
        """Whether images are encoded anew."""
        return self.source.align or self.source.resize is not None or self.source.quality is not None

    @property
    def keeps(self) -> bool:
        """Whether images are kept as they were looked at, to be packed from there."""
        return (self.reencodes or self.source.costly or self.source.streamed) and not self.source.dry_run


def list_source(work: Work, part: int = 0, parts: int = 1) -> Iterator[Chunk]:
    """Lists the source and yields its chunks; writes the records of those of one part, each `parts`-th from `part`.

    Raises UserError if the source cannot be listed, or its own splits and the options contradict each other.
    """
    for name in ("listed", "looked", "kept"):
        (work.directory / name).mkdir(parents=True, exist_ok=True)
    records = work.source.records()
    size = 1 if work.source.streamed else CHUNK
    number = 0
    own: Counter[str] = Counter()
    while some := list(itertools.islice(records, size)):
        text = _encode(some).encode()
        chunk = Chunk(number, hashlib.sha256(text).hexdigest(), len(some))
        if chunk.number % parts == part and not work.looked(chunk, ".rows").exists():
            write_whole(work.listed(chunk.number), text)
        own.update(record.split for record in some if not record.rejected)
        yield chunk
        number += 1
    if not work.source.streamed:
        work.source.shares(own)


def look(work: Work, chunk: Chunk) -> int:
    """Looks at the images of a chunk unless that is done, and returns the number of its records."""
    if work.looked(chunk, ".rows").exists():
        return chunk.size
    rows: list[tuple[int | bool, ...]] = []
    lines: list[bytes] = []
    start = 0
    listed = map(Record._make, json.loads(work.listed(chunk.number).read_bytes()))
    with whole_file(work.kept(chunk.number)) if work.keeps else nullcontext() as kept:
        for record, read in work.source.expand(listed):
            at, length = record.at, 0
            try:
                line = labels_of(record)
                encoded, seen = examine(work, record, read)
            except (ImageError, UnicodeEncodeError) as error:
                seen, rejected = Fingerprint("jpg", 0, 0), True
                reason = str(error) if isinstance(error, ImageError) else "its name is not UTF-8"
                line = _encode({"row": record.row, "source": record.name, "rejected": reason}).encode()
            else:
                length, rejected = len(encoded), False
                if kept:
                    at = kept.tell()
                    kept.write(encoded)
            rows.append(
                (
                    seen.content,
                    seen.appearance,
                    _subject_hash(record.subject) if record.subject else 0,
                    _hash(work.source.key(record.name)),
                    at,
                    start,
                    len(line),
                    length,
                    record.gender,
                    SPLIT_NAMES.index(record.split) if record.split else -1,
                    EXTENSION_NAMES.index(seen.extension),
                    seen.turned,
                    rejected,
                )
            )
            lines.append(line)
            start += len(line) + 1
    write_whole(work.looked(chunk, ".jsonl"), b"".join(line + b"\n" for line in lines))
    write_whole(work.looked(chunk, ".rows"), np.array(rows, dtype=SEEN).tobytes())
    return chunk.size


def examine(work: Work, record: Record, read: Callable[[], bytes]) -> tuple[bytes, Fingerprint]:
    """The image of a record as it will be packed, and its fingerprint; raises as `read_image` if it cannot be."""
    source = work.source
    if record.rejected:
        raise ImageError(record.rejected)
    encoded = read_image(read, record.name, again=not source.streamed)
    if source.align:
        assert work.recipe
        encoded = align_encoded(encoded, work.recipe, listed_faces(source, record), source.quality or 95).encoded
    elif work.reencodes:
        encoded = reencode(encoded, source.resize, source.quality or 95)
    if source.decode:
        return encoded, fingerprint(encoded, source.near_duplicates)
    return encoded, Fingerprint(extension_of(encoded), content_hash(encoded), 0)


def listed_faces(source: Source, record: Record) -> list[Points] | None:
    """The landmarks of a record's faces, if --landmarks has them; None if a detector is to find them."""
    if not source.landmarks:
        return None
    images = source.images if isinstance(source, ImageDirectory) else None
    return _landmark_file(source.landmarks, images).faces(record.name)


_landmark_file = lru_cache(LandmarkFile)  # each process reads it once


def read_image(read: Callable[[], bytes], name: str, again: bool = True) -> bytes:
    """An image that is called `name`, tried again where storage fails if that works; ImageError if there is none.

    Raises UserError if it is there but cannot be read: that is not the image's fault, and may be that of all others.
    """
    try:
        return retried(read, name) if again else read()
    except OSError as error:
        reason = error.strerror or one_line(error)
        if error.errno in ABSENT:
            raise ImageError(f"it cannot be read: {reason}") from None
        raise UserError(
            f"cannot read {error.filename or name}: {reason}; after that is fixed, the same command resumes"
        ) from None


def labels_of(record: Record) -> bytes:
    """The labels of a sample as JSON, as they lie in the tar: written out, for it's done millions of times."""
    return (
        f'{{"age":{record.age!r},"gender":{record.gender},"group":{_quoted(record.group)},"row":{record.row},'
        f'"source":{_quoted(record.name)},"subject":{_quoted(record.subject)}}}'
    ).encode()


def _hash(text: str) -> int:
    """64 bits of a text, never 0."""
    return xxh3_64_intdigest(text.encode(errors="surrogateescape")) or 1


_subject_hash = lru_cache(maxsize=4096)(_hash)  # pictures of a subject lie together
