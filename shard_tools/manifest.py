"""The shard format, and its `manifest.json`.

A packed data set is a directory

    manifest.json                what it is; written last, so its presence means that the data set is complete
    <split>/<split>-000000.tar   WebDataset shards: <key>.jpg, <key>.json, <key>.jpg, ...
    <split>/<split>-000000.idx   the same for DALI's own reader (wds2idx, version 1.2)
    <split>/index.npy            a structured array, one row a sample, in the order of the shards
    summary.txt                  what the packer printed
    quarantine/, contradictions.csv   what was left out and why, and labels that contradict each other, if any

whose index (shard_tools/index.py) every reader memory-maps: it finds any sample's bytes without reading the tars.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_tools.align.recipe import Recipe
from shard_tools.base.documents import parse_json, restored
from shard_tools.base.errors import UserError, nearest
from shard_tools.base.files import write_whole
from shard_tools.base.storage import retried, unreadable
from shard_tools.base.text import plural

if TYPE_CHECKING:  # numpy is for those who read an index
    from shard_tools.index import Index

FORMAT = "hpcgender-shards"
VERSION = 2
CLASSES = ("female", "male")
MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
UNFINISHED = ".packing"
"""Directory that is there until a data set is complete."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar: its name within the data set, the samples and bytes in it, and its SHA-256."""

    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its samples, how many of each class, its shards, and the SHA-256 of its index."""

    name: str
    samples: int
    counts: dict[str, int]
    shards: tuple[Shard, ...]
    index_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a packed data set is. `root` is where it lies and `sha256` the hash of its manifest.json."""

    root: Path
    source: str
    convention: str
    options: dict[str, Any]
    """Of packing, those that matter to its result (sources.Source), without paths."""
    classes: tuple[str, ...]
    splits: dict[str, Split]
    quarantined: int
    crop: Recipe | None = None
    """How the images were cropped; None if they are as they were, or if nobody stated it."""
    numbering: str = ""
    """Whose ids the subjects have: equal ids mean the same person where this is equal; empty if that is not known."""
    sha256: str = ""

    def split(self, name: str) -> Split:
        """The split of that name; UserError if there is none."""
        if name not in self.splits:
            raise UserError(f"no split {name!r} in {self.root}: {nearest(name, self.splits)}")
        return self.splits[name]

    def index(self, split: str) -> Index:
        """The index of a split, memory-mapped: one row a sample with the fields of `index_dtype`.

        UserError if it cannot be read, or says what cannot be: a process looks at all of its values once.
        """
        from shard_tools.index import checked_index

        found = self.split(split)
        bytes_of_shards = tuple(shard.bytes for shard in found.shards)
        return checked_index(self.index_path(split), found.samples, bytes_of_shards, found.index_sha256)

    def index_path(self, split: str) -> Path:
        """Where the index of a split is."""
        return self.root / split / "index.npy"

    def shard_paths(self, split: str) -> list[Path]:
        """The tars of a split, in order."""
        return [self.root / shard.file for shard in self.split(split).shards]


def write_manifest(manifest: Manifest) -> None:
    """Writes manifest.json; the last step of packing. Equal data sets give equal bytes: it holds no time or path."""
    content = asdict(manifest)
    del content["root"], content["sha256"]
    text = json.dumps({"format": FORMAT, "version": VERSION, **content}, indent=1) + "\n"
    write_whole(manifest.root / MANIFEST, text.encode())


def manifest_sha256(root: Path | None) -> str:
    """The SHA-256 of a data set's manifest; empty if there is no data set, or it is not packed yet."""
    if root is None:
        return ""
    path = root / MANIFEST
    try:
        return hashlib.sha256(retried(path.read_bytes, path)).hexdigest()
    except OSError:
        return ""


def read_manifest(root: Path) -> Manifest:
    """The manifest of the data set in `root`; UserError if there is none or it is of another format."""
    path = root / MANIFEST
    try:
        raw = retried(path.read_bytes, path)
    except PermissionError as error:
        raise unreadable(error, path) from None
    except OSError:
        if (root / UNFINISHED).exists():
            raise UserError(f"{root} is not packed to its end: give the same shard-tools command again") from None
        raise UserError(
            f"no {MANIFEST} in {root}: name a packed data set, or pack one: shard-tools pack --help"
        ) from None
    again = "pack the data set again"
    content = parse_json(raw, path, again)
    if (content.pop("format", None), content.pop("version", None)) != (FORMAT, VERSION):
        raise UserError(f"{path} is not of format {FORMAT} {VERSION}: {again}")
    where = {"root": str(root), "sha256": hashlib.sha256(raw).hexdigest()}
    manifest = restored(Manifest, {**content, **where}, path, again)
    for fault in _manifest_faults(manifest):
        raise UserError(f"{path} is damaged, {fault}: {again}")
    return manifest


def _is_count(value: int) -> bool:
    return 0 <= value < 2**63


def _manifest_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong in a manifest whose fields have the right types."""
    if not _is_count(manifest.quarantined):
        yield "its number of quarantined images is out of range"
    if not manifest.splits:
        yield "it has no splits"
    for name, split in manifest.splits.items():
        if split.name != name or not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            yield f"split {name!r} has another name or is no directory name"
        elif set(split.counts) != set(manifest.classes):
            yield f"split {name} does not count {' and '.join(manifest.classes)}"
        elif not all(map(_is_count, (split.samples, *split.counts.values()))):
            yield f"a count of split {name} is out of range"
        elif not _SHA256.fullmatch(split.index_sha256):
            yield f"the SHA-256 of the index of split {name} is not one"
        elif faults := [fault for shard in split.shards for fault in _shard_faults(name, shard)]:
            yield from faults
        elif len({shard.file for shard in split.shards}) < len(split.shards):
            yield f"split {name} has a shard twice"
        elif sum(shard.samples for shard in split.shards) != split.samples:
            yield f"the shards of split {name} do not add up to its {plural(split.samples, 'sample')}"


def _shard_faults(split: str, shard: Shard) -> Iterator[str]:
    if not re.fullmatch(rf"{re.escape(split)}/[\w.-]+\.tar", shard.file, re.ASCII):
        yield f"{shard.file!r} is not a tar in {split}/"
    elif not _is_count(shard.samples) or not _is_count(shard.bytes):
        yield f"samples or bytes of {shard.file} are out of range"
    elif not _SHA256.fullmatch(shard.sha256):
        yield f"the SHA-256 of {shard.file} is not one"
