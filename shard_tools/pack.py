"""Packs a source: looks at every image, deals them to splits, writes the shards, and the manifest last."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.commands import UserError
from shard_tools.images import Fingerprint, ImageError, fingerprint
from shard_tools.manifest import CLASSES, Manifest, Split, write_manifest
from shard_tools.output import check_empty, new_directory
from shard_tools.progress import track
from shard_tools.sources import Record, Source
from shard_tools.split import Ints, keep_own_splits, linked_groups, split_groups
from shard_tools.writer import SplitWriter

SPLITS = ("train", "val", "test")
MAX_KEY = 80  # a ustar name has at most 100 bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that will be packed."""

    record: Record
    fingerprint: Fingerprint
    key: str


def pack(source: Source) -> None:
    """Packs `source` into `source.out`; nothing is left there unless all went well."""
    check(source)
    records = list(source.records())
    samples, rejected = look(source, records)
    if not samples:
        raise UserError(f"none of {len(records)} images can be used, the first because {rejected[0][1]}")
    groups = linked_groups(
        np.array([s.fingerprint.content for s in samples], dtype=np.uint64),
        np.array([s.fingerprint.appearance for s in samples], dtype=np.uint64),
        np.array([s.record.subject for s in samples]),
    )
    splits, moved = assign_splits(source, samples, groups)

    with new_directory(source.out) as partial:
        write_quarantine(partial, rejected)
        manifest = Manifest(
            root=partial,
            source=type(source).__name__.lower(),
            convention=source.convention,
            options=options_of(source),
            classes=CLASSES,
            splits=write_splits(source, partial, samples, splits),
            quarantined=len(rejected),
        )
        write_manifest(manifest)
    summarise(source, manifest, len(np.unique(groups)), moved)


def options_of(source: Source) -> dict[str, Any]:
    """The options that decide what is packed, without paths: what the manifest says of how it came about."""
    transient = {"workers", "task", "dry_run"}
    values = {field.name: getattr(source, field.name) for field in fields(source) if field.name not in transient}
    return {name: value for name, value in values.items() if not isinstance(value, Path)}


def check(source: Source) -> None:
    """Raises UserError for options that cannot work."""
    if source.val < 0 or source.test < 0 or source.val + source.test > 1:
        raise UserError(
            f"--val {source.val} and --test {source.test} are not shares of all images: give 0 to 1 together"
        )
    if source.shard_mb <= 0 or source.workers < 1:
        raise UserError("--shard-mb and --workers must be positive")
    check_empty(source.out)


def look(source: Source, records: list[Record]) -> tuple[list[Sample], list[tuple[Record, str]]]:
    """Decodes every image: what can be packed, and what cannot with the reason."""

    def examine(record: Record) -> Fingerprint | str:
        if record.rejected:
            return record.rejected
        try:
            return fingerprint(source.read(record))
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"

    samples: list[Sample] = []
    rejected: list[tuple[Record, str]] = []
    keys = unique_keys(records)
    with ThreadPoolExecutor(source.workers) as pool:
        looked = track(pool.map(examine, records), len(records), "looking at images")
        for record, key, result in zip(records, keys, looked, strict=True):
            if isinstance(result, str):
                rejected.append((record, result))
            else:
                samples.append(Sample(record, result, key))
    return samples, rejected


def unique_keys(records: Iterable[Record]) -> list[str]:
    """A WebDataset key for each record: its name, without what a key must not hold, made unique by its row."""
    keys = []
    for record in records:
        folder, _, file = record.name.rpartition("/")
        stem = f"{folder}/{file.split('.', 1)[0]}" if folder else file.split(".", 1)[0]
        keys.append(re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[-MAX_KEY:])
    seen = Counter(keys)
    return [
        key if key and seen[key] == 1 else f"{key}-{record.row}".lstrip("-")
        for key, record in zip(keys, records, strict=True)
    ]


def assign_splits(source: Source, samples: list[Sample], groups: Ints) -> tuple[Ints, int]:
    """The number of each sample's split in SPLITS, and how many samples left the split the source had put them in."""
    if any(sample.record.split for sample in samples):
        own = np.array([SPLITS.index(sample.record.split or "train") for sample in samples])
        return keep_own_splits(groups, own)
    return split_groups(groups, (1 - source.val - source.test, source.val, source.test), source.seed), 0


def write_splits(source: Source, root: Path, samples: list[Sample], splits: Ints) -> dict[str, Split]:
    """Writes the shards of every split that has samples, in a seeded random order."""
    written = {}
    for number, name in enumerate(SPLITS):
        members = np.flatnonzero(splits == number)
        if not len(members):
            continue
        chosen = [samples[i] for i in np.random.default_rng([source.seed, 1, number]).permutation(members)]
        with SplitWriter(root, name, int(source.shard_mb * 1e6)) as writer:
            for sample in track(chosen, len(chosen), f"packing {name}"):
                writer.write(sample.record, sample.key, sample.fingerprint, source.read(sample.record))
            written[name] = writer.close()
    return written


def write_quarantine(root: Path, rejected: list[tuple[Record, str]]) -> None:
    """Lists the images that were left out, with the reason, in quarantine.csv; no file if there are none."""
    if rejected:
        with (root / "quarantine.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "source", "reason"))
            writer.writerows((record.row, record.name, reason) for record, reason in rejected)


def summarise(source: Source, manifest: Manifest, groups: int, moved: int) -> None:
    for split in manifest.splits.values():
        counts = ", ".join(f"{count} {name}" for name, count in split.counts.items())
        print(f"{split.name}: {split.samples} images ({counts}) in {len(split.shards)} shards")
    total = sum(split.samples for split in manifest.splits.values())
    print(f"{total} images in {groups} groups of the same picture or subject; no group is in two splits")
    if moved:
        print(f"{moved} images were moved to the split of a picture that is the same or of the same subject")
    if manifest.quarantined:
        print(f"{manifest.quarantined} images left out, reasons in {source.out / 'quarantine.csv'}")
    print(f"packed into {source.out}")
