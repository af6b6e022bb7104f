"""The data sets that can be packed: one file each, with one class that lists its images and their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shard_tools.commands import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source and what the source says of it, in hpcgender's conventions."""

    row: int
    """Number of the image in the source's own order."""
    name: str
    """Where the source has it: a path below its directory."""
    gender: int = -1
    """0 female, 1 male, -1 unknown."""
    age: float = -1.0
    """Years, -1 unknown."""
    subject: str = ""
    """Who is in the picture; empty if unknown."""
    group: str = ""
    """The data set's race field as a name; empty if unknown."""
    split: str = ""
    """The source's own split (train, val or test); empty if it has none."""
    rejected: str = ""
    """Why the source cannot label this image; empty if it can."""


@dataclass(kw_only=True)
class Source:
    """What to pack and how: the options that every source shares. A source adds its own and says how to read it."""

    out: Path
    """Directory to write; must not exist or be empty."""
    val: float = 0.1
    """Share of the images for validation."""
    test: float = 0.1
    """Share of the images for testing; what val and test leave is for training."""
    seed: int = 0
    """Draws the split and the order of the images in the shards."""
    shard_mb: float = 64.0
    """Size of a shard in MB (10^6 bytes)."""
    workers: int = 2
    """Threads that read and decode."""

    @property
    def convention(self) -> str:
        """What the source's labels mean and how they were converted, for the manifest."""
        raise NotImplementedError

    def records(self) -> Iterator[Record]:
        """Every image of the source in a fixed order, those it cannot label included; raises UserError if none."""
        raise NotImplementedError

    def read(self, record: Record) -> bytes:
        """The encoded image of a record."""
        raise NotImplementedError


@dataclass(kw_only=True)
class ImageDirectory(Source):
    """A source that is a directory of image files."""

    images: Path
    """Directory with the images; searched with its subdirectories."""

    def files(self) -> list[str]:
        """Paths of the image files below `images`, sorted; UserError if the directory is missing or has none."""
        if not self.images.is_dir():
            raise UserError(f"no directory {self.images}: give the one with the images as --images")
        paths = [p for p in self.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not paths:
            raise UserError(f"no images in {self.images}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        return sorted(p.relative_to(self.images).as_posix() for p in paths)

    def read(self, record: Record) -> bytes:
        return (self.images / record.name).read_bytes()
