"""Counts what a packed data set holds, from its memory-mapped indexes alone: no image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shard_tools.base.text import printable
from shard_tools.manifest import Manifest

Ints = npt.NDArray[np.int64]

UNKNOWN = "unknown"
ALL = "all"
OLDEST = 120
"""Years; ages from here on are one bin."""


@dataclass(frozen=True)
class Breakdown:
    """How many images have a label: `counts` (len(names), genders), one row a name, the last gender unknown."""

    names: tuple[str, ...]
    counts: Ints

    @property
    def known(self) -> bool:
        """Whether there is any name but unknown."""
        return any(name != UNKNOWN for name in self.names)


@dataclass(frozen=True)
class Quantiles:
    """Of a quantity that `images` images have."""

    images: int
    min: float
    p5: float
    median: float
    p95: float
    max: float


@dataclass(frozen=True)
class Subjects:
    """The people in some images, and how many images there are of each."""

    subjects: int
    min: int
    median: float
    max: int
    both_genders: int
    """Subjects that are labelled female in one picture and male in another."""
    images_without: int
    """Images of which the subject is unknown."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the chosen splits hold."""

    genders: tuple[str, ...]
    """The classes, and unknown."""
    images: int
    image_bytes: int
    shards: int
    shard_bytes: int
    copies: int
    """Images whose bytes are those of another one that is counted already."""
    by_split: Breakdown
    by_age: Breakdown
    """Of ten years each."""
    by_group: Breakdown
    """The largest group first, those without one last."""
    by_five_years: Breakdown
    """Images whose age is known."""
    ages: dict[str, Quantiles]
    """Years, of each gender of which some age is known."""
    sizes: dict[str, Quantiles]
    """Bytes of an encoded image, of each split and of all."""
    subjects: dict[str, Subjects]
    """Of each split and of all; empty if no subject is known."""
    per_subject: Breakdown
    """Number of subjects with so many images; one column."""
    by_size: Breakdown
    """Number of images of so many KB; one column."""


def text(raw: bytes) -> str:
    """A label of the index as it can be shown anywhere: control characters and what is not UTF-8 are replaced."""
    return printable(raw.decode("utf-8", "replace"))


def gender_codes(gender: npt.NDArray[np.int8], classes: int) -> npt.NDArray[np.int8]:
    """The index's genders with every unknown one as `classes`."""
    return np.where((gender >= 0) & (gender < classes), gender, classes).astype(np.int8)


def measure(manifest: Manifest, splits: Sequence[str]) -> Statistics:
    """The statistics of some splits; raises UserError if an index cannot be read.

    Needs a few seconds and, beside the memory-mapped indexes, about 60 bytes an image.
    """
    indexes = [manifest.index(name) for name in splits]

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([index[name] for index in indexes])

    genders = (*manifest.classes, UNKNOWN)
    split = np.repeat(np.arange(len(splits), dtype=np.int8), [len(index) for index in indexes])
    gender = gender_codes(column("gender"), len(manifest.classes))
    shards = [shard for name in splits for shard in manifest.split(name).shards]
    lengths = column("length")
    sizes = {name: lengths[split == code] for code, name in enumerate(splits)} | {ALL: lengths}
    by_age, by_five_years, ages = ages_of(column("age"), gender, genders)
    per_subject, subjects = subjects_of(column("subject"), gender, split, splits)
    return Statistics(
        genders=genders,
        images=len(gender),
        image_bytes=int(lengths.sum(dtype=np.int64)),
        shards=len(shards),
        shard_bytes=sum(shard.bytes for shard in shards),
        copies=copies_of(column("content")),
        by_split=Breakdown(tuple(splits), cross(split, gender, len(splits), len(genders))),
        by_age=by_age,
        by_group=groups_of(column("group"), gender, len(genders)),
        by_five_years=by_five_years,
        ages=ages,
        sizes={name: quantiles(values) for name, values in sizes.items() if len(values)},
        subjects=subjects,
        per_subject=per_subject,
        by_size=sizes_of(lengths),
    )


def copies_of(content: npt.NDArray[np.uint64]) -> int:
    """How many values occurred before; sorts them in place, which is ten times as fast as np.unique."""
    content.sort()
    return int(np.count_nonzero(content[1:] == content[:-1]))


def ages_of(
    age: npt.NDArray[np.float32], gender: npt.NDArray[np.int8], genders: Sequence[str]
) -> tuple[Breakdown, Breakdown, dict[str, Quantiles]]:
    """Images by ten years and unknown, by five years, and the quantiles of each gender."""
    known = age >= 0  # false for NaN, too
    unknown = np.bincount(gender[~known], minlength=len(genders))
    age, gender = age[known], gender[known]
    years = np.minimum(age, OLDEST).astype(np.int16)
    decades = cross(years // 10, gender, OLDEST // 10 + 1, len(genders))
    lustra = cross(years // 5, gender, OLDEST // 5 + 1, len(genders))
    values = {name: age[gender == code] for code, name in enumerate(genders)}
    return (
        filled([*(age_bin(start, 10) for start in range(0, OLDEST + 1, 10)), UNKNOWN], np.vstack([decades, unknown])),
        up_to_last([age_bin(start, 5) for start in range(0, OLDEST + 1, 5)], lustra),
        {name: quantiles(found) for name, found in values.items() if len(found)},
    )


def cross(rows: npt.NDArray[np.integer], gender: npt.NDArray[np.int8], names: int, genders: int) -> Ints:
    """Number of images of each row and gender: (names, genders)."""
    cells = rows.astype(np.int32) * genders + gender
    return np.bincount(cells, minlength=names * genders).reshape(names, genders).astype(np.int64)


def filled(names: Sequence[str], counts: Ints) -> Breakdown:
    """The rows that count anything."""
    used = counts.sum(1) > 0
    return Breakdown(tuple(name for name, some in zip(names, used, strict=True) if some), counts[used])


def up_to_last(names: Sequence[str], counts: Ints) -> Breakdown:
    """The rows up to the last that counts anything: empty ones between others belong into a histogram."""
    used = np.flatnonzero(counts.sum(1))
    end = int(used[-1]) + 1 if len(used) else 0
    return Breakdown(tuple(names[:end]), counts[:end])


def age_bin(start: int, years: int) -> str:
    return f"{start} and over" if start >= OLDEST else f"{start}-{start + years - 1}"


def groups_of(group: npt.NDArray[np.bytes_], gender: npt.NDArray[np.int8], genders: int) -> Breakdown:
    names, code = np.unique(group, return_inverse=True)
    counts: dict[str, Ints] = {}
    for raw, row in zip(names.tolist(), cross(code, gender, len(names), genders), strict=True):
        name = text(raw) or UNKNOWN
        counts[name] = counts.get(name, 0) + row  # a group may be called unknown, too
    order = sorted(counts, key=lambda name: (name == UNKNOWN, -int(counts[name].sum()), name))
    return Breakdown(tuple(order), np.array([counts[name] for name in order], dtype=np.int64).reshape(-1, genders))


def quantiles(values: npt.NDArray[np.number]) -> Quantiles:
    return Quantiles(len(values), *(float(value) for value in np.percentile(values, (0, 5, 50, 95, 100))))


def subjects_of(
    subject: npt.NDArray[np.bytes_], gender: npt.NDArray[np.int8], split: npt.NDArray[np.int8], splits: Sequence[str]
) -> tuple[Breakdown, dict[str, Subjects]]:
    """The histogram of images per subject, and the subjects of each split and of all."""
    named = subject != b""
    if not named.any():
        return Breakdown((), np.zeros((0, 1), np.int64)), {}
    without = np.bincount(split[~named], minlength=len(splits))
    code = np.unique(subject[named], return_inverse=True)[1]
    gender, split = gender[named], split[named]
    number = int(code.max()) + 1

    def pictures(chosen: npt.NDArray[np.bool_]) -> Ints:
        """Number of chosen images of each subject."""
        return np.bincount(code[chosen], minlength=number).astype(np.int64)

    def summary(chosen: npt.NDArray[np.bool_], without: int) -> Subjects:
        images = pictures(chosen)
        both = int(np.count_nonzero((pictures(chosen & (gender == 0)) > 0) & (pictures(chosen & (gender == 1)) > 0)))
        images = images[images > 0]
        if not len(images):
            return Subjects(0, 0, 0.0, 0, 0, without)
        return Subjects(len(images), int(images.min()), float(np.median(images)), int(images.max()), both, without)

    everyone = np.ones(len(code), bool)
    found = {name: summary(split == value, int(without[value])) for value, name in enumerate(splits)}
    found[ALL] = summary(everyone, int(without.sum()))
    return per_subject_of(pictures(everyone)), found


def per_subject_of(images: Ints) -> Breakdown:
    """Number of subjects with 1, 2, 3, ... images; in bins of doubling width if some have more than 20."""
    most = int(images.max())
    starts = list(range(1, most + 1))
    if most > 20:
        starts = [1, 2, 3, 5, 9, 17]
        while starts[-1] * 2 - 1 <= most:
            starts.append(starts[-1] * 2 - 1)
    ends = [start - 1 for start in starts[1:]] + [most]
    names = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    bins = np.searchsorted(starts, images, side="right") - 1
    return Breakdown(tuple(names), np.bincount(bins, minlength=len(starts))[:, None].astype(np.int64))


def sizes_of(lengths: npt.NDArray[np.uint32]) -> Breakdown:
    """Number of images by size, in some twenty bins of a round number of KB; the largest hundredth is the last bin."""
    if not len(lengths):
        return Breakdown((), np.zeros((0, 1), np.int64))
    target = float(np.percentile(lengths, 99)) / 20 / 1e3
    step = next(s for s in (m * 10.0**e for e in range(-2, 6) for m in (1, 2, 5)) if s >= target)
    bins = np.minimum((lengths / (step * 1e3)).astype(np.int64), 20)
    counts = np.bincount(bins)[:, None].astype(np.int64)
    names = [f"{i * step:g}-{(i + 1) * step:g}" if i < 20 else f"{i * step:g} and more" for i in range(len(counts))]
    return Breakdown(tuple(names), counts)
