"""Writes the shards of one split: tars, DALI's .idx beside each, the index. Equal samples give equal bytes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from shard_tools.images import Fingerprint
from shard_tools.manifest import CLASSES, Shard, Split, index_dtype
from shard_tools.sources import Record

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


def member(name: str, content: bytes) -> bytes:
    """A tar member in plain ustar: header, content, padding. Time, owner and mode are fixed."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


class SplitWriter:
    """Writes samples one by one into `<root>/<split>/<split>-000000.tar` and so on; `close` returns the Split."""

    def __init__(self, root: Path, split: str, shard_bytes: int) -> None:
        self.root = root
        self.split = split
        self.shard_bytes = shard_bytes
        self.shards: list[Shard] = []
        self.rows: list[tuple[int, int, int, int, float, int, int, int, bytes, bytes, bytes]] = []
        self.tar: BinaryIO | None = None
        (root / split).mkdir(parents=True)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.tar:
            self.tar.close()

    def write(self, record: Record, key: str, seen: Fingerprint, encoded: bytes) -> None:
        """Appends one sample; starts a new shard when it would pass the size asked for."""
        labels = {
            "age": record.age,
            "gender": record.gender,
            "group": record.group,
            "row": record.row,
            "source": record.name,
            "subject": record.subject,
        }
        label_bytes = json.dumps(labels, ensure_ascii=False, separators=(",", ":")).encode()
        image_name, label_name = f"{key}.{seen.extension}", f"{key}.json"
        members = member(image_name, encoded) + member(label_name, label_bytes)
        if self.tar and self.position + len(members) + len(END) > self.shard_bytes:
            self.finish_shard()
        if not self.tar:
            self.start_shard()
        assert self.tar
        offset = self.position + BLOCK
        label_offset = self.position + len(members) - BLOCK * -(-len(label_bytes) // BLOCK)
        self.tar.write(members)
        self.hash.update(members)
        self.position += len(members)
        self.idx.append(
            f"{seen.extension} {offset} {len(encoded)} {image_name} json {label_offset} {len(label_bytes)} {label_name}"
        )
        self.rows.append(
            (
                len(self.shards),
                offset,
                len(encoded),
                record.gender,
                record.age,
                record.row,
                seen.content,
                seen.appearance,
                key.encode(),
                record.subject.encode(),
                record.group.encode(),
            )
        )

    def start_shard(self) -> None:
        self.name = f"{self.split}/{self.split}-{len(self.shards):06d}"
        self.tar = (self.root / f"{self.name}.tar").open("wb")
        self.hash = hashlib.sha256()
        self.position = 0
        self.idx: list[str] = []

    def finish_shard(self) -> None:
        assert self.tar
        self.tar.write(END)
        self.hash.update(END)
        self.tar.close()
        self.tar = None
        (self.root / f"{self.name}.idx").write_text("\n".join([f"v1.2 {len(self.idx)}", *self.idx]) + "\n")
        self.shards.append(
            Shard(
                file=f"{self.name}.tar",
                samples=len(self.idx),
                bytes=self.position + len(END),
                sha256=self.hash.hexdigest(),
            )
        )

    def close(self) -> Split:
        """Finishes the last shard and writes the index; the split is complete."""
        if self.tar:
            self.finish_shard()
        widths = [max((len(row[column]) for row in self.rows), default=1) for column in (8, 9, 10)]  # type: ignore[arg-type]
        index = np.array(self.rows, dtype=index_dtype(*widths))
        path = self.root / self.split / "index.npy"
        np.save(path, index)
        counts = {name: int(np.count_nonzero(index["gender"] == value)) for value, name in enumerate(CLASSES)}
        return Split(
            name=self.split,
            samples=len(index),
            counts=counts,
            shards=tuple(self.shards),
            index_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
