"""`shard-tools pack SOURCE`, a command for each source: the options are the fields of the source's class."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shard_tools.base.commands import Command, Made
from shard_tools.manifest import UNFINISHED


class Packed(Protocol):
    """What the options of every source have."""

    @property
    def out(self) -> Path:
        """Directory of the data set."""

    @property
    def task(self) -> str:
        """Which part of it, of how many; empty for all."""


class Pack(Command[Packed]):
    """Packing a source into a data set."""

    def results(self, options: Packed) -> Path:
        return options.out

    def shared(self, options: Packed) -> bool:
        return bool(options.task)

    def progress(self, options: Packed) -> int:
        """The parts that are done: files in the directory of the unfinished pack."""
        return sum(1 for _ in (options.out / UNFINISHED).rglob("*"))

    def made(self, options: Packed) -> Made:
        return Made(data=options.out)


def pack(source: str, summary: str) -> Pack:
    """The command that packs with a class in the module of `shard_tools.sources` with its name in small letters."""
    name = source.lower()
    options = f"shard_tools.sources.{name}:{source}"
    return Pack(name=f"pack {name}", summary=summary, options=options, work="shard_tools.pack:pack")


COMMANDS = (
    pack("Ms1mv2", "pack MS1MV2 and other MXNet RecordIO files, with a list of genders"),
    pack("Morph", "pack MORPH, by its names, its CSV and a list of corrections"),
    pack("Utkface", "pack images with UTKFace's names"),
    pack("Folders", "pack one directory of images a class, such as Kaggle's"),
    pack("Table", "pack what a CSV, TSV, Parquet or list names, such as FairFace and CelebA"),
    pack("Webdataset", "pack the tars of a WebDataset, from files, URLs or commands, with labels of your choice"),
    pack("Synthetic", "pack drawn faces"),
)
