"""Shows a packed data set: its tables, JSON, contact sheet and page, or one sample of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

from shard_tools.base.errors import UserError
from shard_tools.base.files import write_file
from shard_tools.base.text import plural, print_facts, print_tables, printable
from shard_tools.commands.inspect import InspectConfig
from shard_tools.inspect.faces import Face, draw_faces, face_sheet, find
from shard_tools.inspect.rows import write_rows
from shard_tools.inspect.sample import print_sample, read_sample
from shard_tools.inspect.statistics import Statistics, measure
from shard_tools.inspect.tables import as_json, header, tables
from shard_tools.manifest import Manifest, read_manifest


def inspect_shards(config: InspectConfig) -> int:
    """Prints and writes what `config` asks for; returns 0. UserError for what the user can correct."""
    config.check()
    manifest = read_manifest(config.data)
    splits = [manifest.split(config.split).name] if config.split else list(manifest.splits)
    if config.sample is not None:
        show_sample(config, manifest, splits)
    else:
        show_data_set(config, manifest, splits)
    return 0


def show_data_set(config: InspectConfig, manifest: Manifest, splits: Sequence[str]) -> None:
    """Tables or JSON on stdout, and the files that were asked for."""
    statistics = measure(manifest, splits)
    written = {}
    if config.sheet or config.html:
        faces = draw_faces(manifest, splits, statistics, config.count, config.seed)
        if not faces:
            raise UserError(f"no images in {', '.join(splits) or manifest.root}: there are no faces to draw")
        title, subtitle = heading(manifest, splits), described(faces, statistics, config.seed)
        if config.sheet:
            buffer = io.BytesIO()
            face_sheet(faces, title, f"{subtitle}. Source: {manifest.source}").save(buffer, "PNG")
            write_file(config.sheet, buffer.getvalue())
            written["contact sheet"] = config.sheet
        if config.html:
            from shard_tools.inspect.page import page  # imports matplotlib, a second that tables need not wait for

            write_file(config.html, page(manifest, statistics, faces, title, subtitle).encode())
            written["page"] = config.html
    if config.csv:
        write_rows(config.csv, manifest, splits)
        written["a row per image"] = config.csv
    if config.json:
        print(json.dumps(as_json(manifest, statistics), indent=1))
        return
    print_facts(header(manifest, statistics))
    print()
    print_tables(*tables(statistics).values())
    if written:
        print()
    for what, path in written.items():
        print(f"{what}: {path}")


def heading(manifest: Manifest, splits: Sequence[str]) -> str:
    """Data set and splits."""
    return printable(f"{manifest.root.resolve().name}: {', '.join(splits)}")


def described(faces: Sequence[Face], statistics: Statistics, seed: int) -> str:
    """How many faces of how many images were drawn, by gender."""
    totals = statistics.by_split.counts.sum(0)
    parts = [
        f"{sum(face.gender == code for face in faces):,} of {totals[code]:,} {name}"
        for code, name in enumerate(statistics.genders)
        if totals[code]
    ]
    return f"{len(faces):,} of {plural(statistics.images, 'image')}: {', '.join(parts)}; drawn at random, seed {seed}"


def show_sample(config: InspectConfig, manifest: Manifest, splits: Sequence[str]) -> None:
    """One sample on stdout, and its image in a file if asked for."""
    split, number = find(manifest, splits, config.sample or "")
    sample = read_sample(manifest, split, number)
    if config.image:
        write_file(config.image, sample.encoded)
    if config.json:
        print(json.dumps({**sample.fields, "intact": sample.intact, "labels": sample.labels}, indent=1))
        return
    print_sample(manifest, sample)
    if config.image:
        print(f"\nimage: {config.image}")
