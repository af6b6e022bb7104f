"""Statistics as tables of text, for a terminal or a job's log, and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from shard_tools.base.text import Table, byte_size, percent, plural, printable
from shard_tools.inspect.statistics import ALL, Breakdown, Ints, Quantiles, Statistics
from shard_tools.manifest import Manifest

MAX_GROUPS = 20
"""Rows of the table of groups; the rest is one row. JSON has them all."""


def tables(statistics: Statistics) -> dict[str, Table]:
    """The tables by their topic; those that would be empty are left out."""
    found = {
        "split": by_gender("split", statistics.by_split, statistics.genders, total=len(statistics.by_split.names) > 1),
        "age": by_gender("age", statistics.by_age, statistics.genders) if statistics.by_age.known else None,
        "years": of_quantiles("years of age", "gender", statistics.ages, "{:.4g}"),
        "group": by_gender("group", largest(statistics.by_group), statistics.genders)
        if statistics.by_group.known
        else None,
        "subjects": of_subjects(statistics),
        "bytes": of_quantiles("bytes of an image", "split", without_repeated_total(statistics.sizes), "{:,.0f}"),
    }
    return {topic: table for topic, table in found.items() if table and table.rows}


def header(manifest: Manifest, statistics: Statistics) -> dict[str, str]:
    """What the data set is, in a few lines: name of the line and text."""
    options = ", ".join(
        f"{name.replace('_', ' ')} {'yes' if value is True else 'no' if value is False else value}"
        for name, value in manifest.options.items()
        if value is not None and value != ""
    )
    lines = {
        "data set": f"{manifest.root.resolve()}",
        "source": f"{manifest.source}: {manifest.convention}",
        "options": options,
        "cropped": manifest.crop.description if manifest.crop else "",
        "images": f"{statistics.images:,}, together {byte_size(statistics.image_bytes)}",
        "shards": f"{statistics.shards:,}, together {byte_size(statistics.shard_bytes)}",
        "copies": f"{plural(statistics.copies, 'image')} with the same bytes as another one"
        if statistics.copies
        else "",
        "quarantined": f"{plural(manifest.quarantined, 'image')} left out when the data set was packed",
        "unknown": ", ".join(unknown_labels(statistics)),
    }
    return {name: printable(line) for name, line in lines.items() if line}


def unknown_labels(statistics: Statistics) -> list[str]:
    """The labels that no image has."""
    known = {
        "ages": statistics.by_age.known,
        "groups": statistics.by_group.known,
        "subjects": bool(statistics.subjects),
    }
    return [name for name, is_known in known.items() if not is_known]


def by_gender(what: str, breakdown: Breakdown, genders: Sequence[str], total: bool = False) -> Table:
    """Images of each name by gender; a gender that nobody has gets no column."""
    counts = breakdown.counts
    names = breakdown.names
    if total:
        names, counts = (*names, ALL), np.vstack([counts, counts.sum(0)])
    shown = [code for code in range(len(genders)) if counts[:, code].any()]
    whole = max(int(breakdown.counts.sum()), 1)
    rows = [
        (name, f"{row.sum():,}", percent(row.sum() / whole), *(f"{row[code]:,}" for code in shown), share(row))
        for name, row in zip(names, counts, strict=True)
        if row.any()
    ]
    columns = (what, "images", "of all", *(genders[code] for code in shown), f"{genders[0]} share")
    return Table(columns, tuple(rows), f"images by {what} and gender")


def share(row: Ints) -> str:
    """The first class among images whose gender is known."""
    return percent(row[0] / row[:-1].sum()) if row[:-1].any() else "-"


def largest(breakdown: Breakdown) -> Breakdown:
    """The first rows, and the others added up if there are too many."""
    if len(breakdown.names) <= MAX_GROUPS + 1:
        return breakdown
    names = (*breakdown.names[:MAX_GROUPS], f"{len(breakdown.names) - MAX_GROUPS:,} others")
    return Breakdown(
        names, np.vstack([breakdown.counts[:MAX_GROUPS], breakdown.counts[MAX_GROUPS:].sum(0, keepdims=True)])
    )


def of_quantiles(title: str, what: str, found: Mapping[str, Quantiles], form: str) -> Table:
    columns = (what, "images", "min", "5 %", "median", "95 %", "max")
    rows = [
        (name, f"{q.images:,}", *(form.format(value) for value in (q.min, q.p5, q.median, q.p95, q.max)))
        for name, q in found.items()
    ]
    return Table(columns, tuple(rows), title)


def of_subjects(statistics: Statistics) -> Table:
    columns = ("split", "subjects", "min", "median", "max", "of both genders", "images without")
    rows = [
        (
            name,
            f"{found.subjects:,}",
            f"{found.min:,}",
            f"{found.median:,g}",
            f"{found.max:,}",
            f"{found.both_genders:,}",
            f"{found.images_without:,}",
        )
        for name, found in without_repeated_total(statistics.subjects).items()
    ]
    return Table(columns, tuple(rows), "subjects, and images of one subject")


def without_repeated_total(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without the row of all if there is one split only."""
    return {name: row for name, row in found.items() if name != ALL or len(found) != 2}


def as_json(manifest: Manifest, statistics: Statistics) -> dict[str, Any]:
    """The same numbers as a JSON object."""

    def of_genders(breakdown: Breakdown) -> dict[str, dict[str, int]]:
        return {
            name: {"images": int(row.sum()), **dict(zip(statistics.genders, row.tolist(), strict=True))}
            for name, row in zip(breakdown.names, breakdown.counts, strict=True)
        }

    return {
        "data": str(manifest.root.resolve()),
        "source": manifest.source,
        "convention": manifest.convention,
        "options": manifest.options,
        "manifest_sha256": manifest.sha256,
        "images": statistics.images,
        "image_bytes": statistics.image_bytes,
        "shards": statistics.shards,
        "shard_bytes": statistics.shard_bytes,
        "copies": statistics.copies,
        "quarantined": manifest.quarantined,
        "by_split": of_genders(statistics.by_split),
        "by_age": of_genders(statistics.by_age),
        "by_group": of_genders(statistics.by_group),
        "years": {name: asdict(found) for name, found in statistics.ages.items()},
        "subjects": {name: asdict(found) for name, found in statistics.subjects.items()},
        "bytes": {name: asdict(found) for name, found in statistics.sizes.items()},
    }
