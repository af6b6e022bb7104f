"""Packs a source: lists it, looks at every image, plans what goes where, writes the shards, and the manifest last.

Finished work is kept in `<out>/.packing` until the manifest is written, so the same command resumes after a kill and
ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shard_tools import unfinished
from shard_tools.align.landmark_file import columns_of
from shard_tools.align.recipe import CropOptions
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory
from shard_tools.base.progress import progress
from shard_tools.base.storage import PASSING, REFUSED, unwritable
from shard_tools.base.text import plural
from shard_tools.catalogue import Catalogue, gather
from shard_tools.commands.finalize import FinalizeConfig
from shard_tools.look import Chunk, Work, list_source, look
from shard_tools.manifest import CLASSES, MANIFEST, UNFINISHED, Manifest, Shard, Split, read_manifest, write_manifest
from shard_tools.plan import Plan, make_plan
from shard_tools.quarantine import write_contradictions, write_quarantine
from shard_tools.sources import Source
from shard_tools.sources.tabular import open_table
from shard_tools.workers import Workers, part_of
from shard_tools.writer import jobs_of, write_index, write_shard

CROP = ("align", "aligned", *(field.name for field in dataclasses.fields(CropOptions)))
"""Options that the recipe in the manifest stands for."""
SHOWN = 12
"""Remarks of a source that are printed; the summary has all."""


class Listing(NamedTuple):
    """What listing a source gives besides the files of its chunks."""

    chunks: list[Chunk]
    remarks: list[str]


class UnusableSourceError(UserError):
    """There is nothing that could be packed: nothing is worth keeping for another try."""


def pack(source: Source) -> None:
    """Packs `source` into `source.out`, or the part of it that `source.task` says; raises UserError."""
    part, parts = check(source)
    if source.dry_run:
        with tempfile.TemporaryDirectory(prefix="shard-tools-") as scratch:
            work = Work(source, Path(scratch))
            with Workers(_shared(work), source.workers) as workers:
                listing = _look(work, workers)
                gather(work, listing.chunks)
                with Catalogue(work.directory) as catalogue:
                    check_genders(source, catalogue)
                    plan = make_plan(source, catalogue)
                    _print_summary(summary(source, catalogue, plan), listing.remarks, plan.warnings)
                print("nothing was written: a dry run")
        return
    with _abandoned_if_unusable(source.out, parts), unfinished.held(source.out, part, parts):
        if (source.out / MANIFEST).exists():  # killed after the last step but one
            unfinished.finish(source.out / UNFINISHED)
            if read_manifest(source.out).options != options_of(source):
                raise UserError(f"{source.out} is packed already, with other options: give another --out")
            print(f"{source.out} was packed already")
            return
        work = Work(source, unfinished.begin(source, parts))
        with Workers(_shared(work), source.workers) as workers:
            listing = _look(work, workers, part, parts)
            if parts == 1:
                _complete(work, workers, listing)
                return
    size = sum(chunk.size for chunk in listing.chunks[part::parts])
    looked = f"looked at part {part + 1} of {parts}, {plural(size, _listed(source))}"
    print(f"{looked}; after all parts: shard-tools finalize {source.out}")


def finalize(config: FinalizeConfig) -> None:
    """Joins the parts of a pack that was run as tasks; UserError if any is missing."""
    if config.workers < 1:
        raise UserError("--workers must be positive")
    unfinished.restore(config.out, config.workers)
    with _abandoned_if_unusable(config.out), unfinished.held(config.out):
        source, parts = unfinished.restore(config.out, config.workers)
        work = Work(source, config.out / UNFINISHED)
        listing = Listing([], [])
        chunks = _list(work, listing)
        missing = sorted({chunk.number % parts + 1 for chunk in chunks if not work.looked(chunk, ".rows").exists()})
        if missing:
            tasks = ", ".join(f"{part}/{parts}" for part in missing)
            raise UserError(f"{config.out} lacks parts of the source as it is now: pack again with --task {tasks}")
        with Workers(_shared(work), source.workers) as workers:
            _complete(work, workers, listing)


def check(source: Source) -> tuple[int, int]:
    """Which part to pack, from 0, and of how many; raises UserError for options that cannot work."""
    given = {name: share for name in ("val", "test") if (share := getattr(source, name)) is not None}
    if any(not 0 <= share <= 1 for share in given.values()) or sum(given.values()) > 1:
        options = " and ".join(f"--{name} {share:g}" for name, share in given.items())
        raise UserError(f"{options}: give fractions of the images, 0 to 1 together")
    if not 0 < source.shard_mb < math.inf or source.workers < 1:
        raise UserError("--shard-mb and --workers must be positive")
    if source.resize is not None and source.resize < 1:
        raise UserError(f"--resize {source.resize} is no number of pixels")
    if source.quality is not None and not 1 <= source.quality <= 95:
        raise UserError(f"--quality {source.quality} is not from 1 to 95")
    source.recipe()
    if source.landmarks:
        columns_of(open_table(source.landmarks))
    if not source.dry_run:
        check_directory(source.out)
    if source.task and source.dry_run:
        raise UserError("--dry-run looks at all images: give it without --task")
    return part_of(source.task)


def _shared(work: Work) -> Work:
    """The work as the processes get it: with a source that has not opened anything."""
    return Work(dataclasses.replace(work.source), work.directory)


@contextmanager
def _abandoned_if_unusable(out: Path, parts: int = 1) -> Iterator[None]:
    """Removes what a pack has done that cannot succeed; where the disk refuses, raises UserError and all stays."""
    try:
        yield
    except UnusableSourceError:
        unfinished.abandon(out, parts)
        raise
    except OSError as error:
        if error.errno not in (*REFUSED, *PASSING):
            raise
        raise unwritable(error, error.filename or out, "after that is fixed, the same command resumes") from None


def _list(work: Work, listing: Listing, part: int = 0, parts: int = 1) -> Iterator[Chunk]:
    """Lists the source into `listing`, and yields the chunks; those of another part are not written."""
    fresh = unfinished.is_fresh(work.directory)
    work = _shared(work)  # what the source holds for listing goes with it
    try:
        for chunk in list_source(work, part, parts):
            listing.chunks.append(chunk)
            yield chunk
    except UserError as error:
        raise (UnusableSourceError if fresh else UserError)(*error.args) from None
    listing.remarks.extend(work.source.remarks())


def _look(work: Work, workers: Workers, part: int = 0, parts: int = 1) -> Listing:
    """Lists the source and looks at the images of one part of it."""
    listing = Listing([], [])
    listed = _list(work, listing, part, parts)
    looked = workers.map(look, (chunk for chunk in listed if chunk.number % parts == part))
    size = sum(chunk.size for chunk in listing.chunks[part::parts])
    with progress(f"looking at {_listed(work.source)}s", size) as advance:
        for done in looked:
            advance(done)
    return listing


def _complete(work: Work, workers: Workers, listing: Listing) -> None:
    """Everything after all images were looked at."""
    source = work.source
    digest = gather(work, listing.chunks)
    with Catalogue(work.directory) as catalogue:
        check_genders(source, catalogue)
        try:
            plan = make_plan(source, catalogue)
        except UserError as error:
            raise UnusableSourceError(*error.args) from None
        lines = summary(source, catalogue, plan)
        if not plan.splits:
            raise UnusableSourceError(
                f"none of {plural(catalogue.size, 'image')} can be used{_first_reason(catalogue, plan)}"
            )
        splits = _write(work, workers, plan, digest)
        write_quarantine(source, catalogue, plan)
        write_contradictions(source.out, catalogue, plan)
    text = "\n".join([*lines, *listing.remarks, *_warning_lines(plan.warnings)]) + "\n"
    (source.out / "summary.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    _remove_leftovers(source.out, splits)
    write_manifest(
        Manifest(
            root=source.out,
            source=type(source).__name__.lower(),
            convention=source.convention,
            options=options_of(source),
            classes=CLASSES,
            splits=splits,
            quarantined=len(plan.rejected),
            crop=work.recipe,
            numbering=source.numbering,
        )
    )
    unfinished.finish(work.directory)
    _print_summary(lines, listing.remarks, plan.warnings)
    print(f"packed into {source.out}")


def _listed(source: Source) -> str:
    """What the source lists, one of them."""
    return "tar" if source.streamed else "image"


def check_genders(source: Source, catalogue: Catalogue) -> None:
    """Raises UserError if the genders of all images that can be used cannot be right."""
    genders = catalogue.column("gender")[np.logical_not(catalogue.column("rejected"))]
    if len(genders):
        try:
            source.check_genders(int(np.count_nonzero(genders == 0)), int(np.count_nonzero(genders == 1)))
        except UserError as error:
            raise UnusableSourceError(*error.args) from None


def _print_summary(lines: list[str], remarks: list[str], warnings: list[str]) -> None:
    """Prints the summary of a pack: of the remarks the first, and warnings last."""
    shown = [*lines, *remarks[:SHOWN]]
    if len(remarks) > SHOWN:
        shown.append(f"and {plural(len(remarks) - SHOWN, 'remark')} more, all in summary.txt")
    text = "\n".join([*shown, *_warning_lines(warnings)])
    print(text.encode(errors="backslashreplace").decode())  # names may be no UTF-8


def _warning_lines(warnings: list[str]) -> list[str]:
    return [f"WARNING: {warning}" for warning in warnings]


def _write(work: Work, workers: Workers, plan: Plan, digest: str) -> dict[str, Split]:
    """Writes the shards and the indices of all splits."""
    jobs = {split.name: list(jobs_of(split, digest)) for split in plan.splits}
    for name, shards in jobs.items():
        (work.directory.parent / name).mkdir(exist_ok=True)
        shards[0].written(work).mkdir(parents=True, exist_ok=True)
    with progress("writing shards", sum(len(split.samples) for split in plan.splits)) as advance:
        written = workers.map(write_shard, [job for shards in jobs.values() for job in shards])
        splits = {}
        for split in plan.splits:
            done: list[Shard] = []
            for shard in itertools.islice(written, len(jobs[split.name])):
                done.append(shard)
                advance(shard.samples)
            splits[split.name] = write_index(work, split, done, jobs[split.name])
    return splits


def _remove_leftovers(out: Path, splits: dict[str, Split]) -> None:
    """Removes what an earlier, killed run left and this one has no use for."""
    for name in ("train", "val", "test"):
        expected = {"index.npy"}
        if name in splits:
            tars = [Path(shard.file).name for shard in splits[name].shards]
            expected |= {file for tar in tars for file in (tar, f"{tar.removesuffix('.tar')}.idx")}
        elif not (out / name).exists():
            continue
        for path in (out / name).iterdir():
            if name not in splits or path.name not in expected:
                path.unlink()
        if name not in splits:
            (out / name).rmdir()


def options_of(source: Source) -> dict[str, Any]:
    """The options that decide what is packed, without paths, as JSON has them: the manifest's record of the pack."""
    values = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    options = {
        name: value
        for name, value in values.items()
        if name not in (*unfinished.TRANSIENT, *CROP) and value not in (None, "", ()) and not _has_path(value)
    }
    plain: dict[str, Any] = json.loads(json.dumps(options))
    return plain


def _has_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, tuple) and any(map(_has_path, value)))


def summary(source: Source, catalogue: Catalogue, plan: Plan) -> list[str]:
    """What is packed, a line each thing."""
    turned = int(catalogue.column("turned").sum())
    lines = [f"{plural(catalogue.size, 'image')} of {type(source).__name__.lower()}: {source.convention}"]
    for split in plan.splits:
        counts = [f"{count:,} {name}" for name, count in split.counts.items()]
        unknown = len(split.samples) - sum(split.counts.values())
        counts += [f"{unknown:,} unknown"] if unknown else []
        shards = len(split.bounds) - 1
        lines.append(
            f"{split.name}: {plural(len(split.samples), 'image')} ({', '.join(counts)}) in {plural(shards, 'shard')}, "
            f"{split.bytes / 1e6:.1f} MB"
        )
    if recipe := source.recipe():
        lines.append(recipe.description)
    lines += plan.remarks
    if turned:
        lines.append(f"{plural(turned, 'image')} stored sideways, which decoders turn upright by the EXIF tag")
    if len(plan.rejected):
        reasons = Counter(line["rejected"] for line in catalogue.labels(plan.rejected))
        lines.append(
            f"{plural(len(plan.rejected), 'image')} left out, listed in {Path('quarantine') / 'quarantine.csv'}:"
        )
        lines += [f"  {count:,}: {reason}" for reason, count in reasons.most_common(5)]
    return lines


def _first_reason(catalogue: Catalogue, plan: Plan) -> str:
    if not len(plan.rejected):
        return ""
    return f", the first because {next(iter(catalogue.labels(plan.rejected[:1])))['rejected']}"
