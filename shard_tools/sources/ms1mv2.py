"""MS1MV2 and other MXNet RecordIO files of faces (`train.rec`, `train.idx`), with gender labels from a list.

Nobody publishes genders with such a file: labs predict them for each image or identity, or they are the records' own
labels. Which value means male is therefore always stated, and checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError
from shard_tools.base.storage import PASSING
from shard_tools.base.text import percent, plural
from shard_tools.images import ImageError
from shard_tools.recordio import RecordError, RecordFile
from shard_tools.sources import Record, Source
from shard_tools.sources.label_lists import Convention, Labels, Layout, layout_of, read_labels
from shard_tools.sources.label_places import by_identity, by_key, by_path, by_stem
from shard_tools.sources.record_listing import Listing, list_images, number_of_identities
from shard_tools.sources.values import canonical

AT_ONCE = 1 << 16

T = TypeVar("T", bound=np.generic)
Places = npt.NDArray[np.int32] | None


class Labelled(NamedTuple):
    """The images of the file with their labels, in the order of their keys."""

    listing: Listing
    gender: npt.NDArray[np.int8]
    age: npt.NDArray[np.float32] | None
    group: npt.NDArray[np.int16] | None
    groups: list[str]
    remarks: list[str]


@dataclass(kw_only=True)
class Ms1mv2(Source):
    """Packs a RecordIO file such as MS1MV2's; the subject of an image is its identity."""

    rec: Path
    """RecordIO file with the images, as train.rec."""
    idx: Path | None = None
    """Its index. Default: the .idx beside it; without one, the file is read from beginning to end."""
    labels: Path | None = None
    """List of genders, text or CSV: `key gender`, `identity gender`, `path race gender age`, or with column names."""
    by: Literal["key", "identity", "path", "record"] | None = None
    """First column of a list without column names; record: the first label of the records, without a list."""
    lst: Path | None = None
    """im2rec's list, key<TAB>label<TAB>path, to find records by path; else paths must end in <key>.jpg."""
    male: str | None = None
    """Value that means male in the list; needed unless the list has words such as male or m."""
    female: str | None = None
    """Value that means female in the list."""
    unknown_value: tuple[str, ...] = ()
    """Values that mean unknown, e.g. -1."""
    vote: Literal["none", "identity"] = "none"
    """identity: all images of an identity get the gender that most of them have."""
    unknown: Literal["drop", "keep"] = "drop"
    """Whether images of unknown gender are left out, or packed with gender -1."""
    near_duplicates: bool = False
    """Whether images that look the same stay in one split, as byte-identical ones always do."""

    @property
    def convention(self) -> str:
        where = "the records' own labels" if self.layout is None else f"a list by {self.layout.what}"
        vote = "; each image has the gender of most images of its identity" if self.vote == "identity" else ""
        return f"RecordIO with genders from {where}, {self.stated} (turned to 0 female 1 male){vote}"

    def records(self) -> Iterator[Record]:
        listing, gender, age, group, groups, _ = self.labelled
        row = 0
        for start in range(0, len(listing.keys), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            columns = zip(
                range(start, start + len(listing.keys[part])),
                listing.keys[part].tolist(),
                listing.offsets[part].tolist(),
                gender[part].tolist(),
                listed(listing.identities, part, -1),
                listed(age, part, -1.0),
                listed(group, part, -1),
                strict=False,
            )
            for position, key, at, is_male, person, years, race in columns:
                rejected = listing.damaged.get(position, "")
                if is_male < 0 and not rejected and self.unknown == "drop":
                    continue
                subject, name = (str(person), f"{person}/{key:08d}") if person >= 0 else ("", f"{key:08d}")
                group_name = groups[race] if race >= 0 else ""
                # In the order of its fields: by name it would take twice as long, millions of times.
                yield Record(row, name, is_male, years, subject, group_name, "", rejected, at)
                row += 1
        for extra, (at, reason) in enumerate(listing.lost.items()):
            yield Record(row=row + extra, name=f"byte-{at}", rejected=reason, at=at)

    def read(self, record: Record) -> bytes:
        try:
            header, image = self.file.read(record.at)
        except RecordError as error:
            raise ImageError(str(error)) from None
        except OSError:
            self.__dict__.pop("file", None)  # to be opened again
            raise
        person, _, key = record.name.rpartition("/")
        if header.id not in (0, int(key)):  # 0: the writer gave no ids
            raise ImageError(f"it is mislabelled: the record for key {int(key)} has the id {header.id}")
        if person and header.labels[0] != int(person):
            raise ImageError(
                f"it is mislabelled: it is listed for identity {person}, but its label is {header.labels[0]:g}"
            )
        return image

    def remarks(self) -> list[str]:
        return self.labelled.remarks

    @cached_property
    def file(self) -> RecordFile:
        """The open RecordIO file."""
        try:
            return RecordFile(self.rec)
        except OSError as error:
            if error.errno in PASSING:
                raise
            raise UserError(f"cannot read {self.rec}: {error.strerror}; give a RecordIO file as --rec") from None

    @cached_property
    def stated(self) -> Convention:
        """What the values of genders mean."""
        return Convention(self.male, self.female, self.unknown_value)

    @cached_property
    def layout(self) -> Layout | None:
        """How the list of labels is laid out; None if the records' own labels are the genders."""
        for option, path in (("--rec", self.rec), ("--idx", self.idx), ("--labels", self.labels), ("--lst", self.lst)):
            if path is not None and not path.is_file():
                raise UserError(f"no file {path}: give the one to read as {option}")
        if self.labels is None:
            if self.by != "record":
                raise UserError("give a list of genders as --labels, or --by record if the records' labels are genders")
            layout = None
        elif self.by == "record":
            raise UserError("--by record takes the records' own labels: give no --labels with it")
        else:
            layout = layout_of(self.labels, self.by)
        if self.lst and (layout is None or layout.what != "path"):
            raise UserError("--lst finds records by path, but the labels are not listed by path: omit it")
        if self.vote == "identity" and (layout is None or layout.what == "identity"):
            raise UserError("--vote identity needs labels of single images, listed by key or path: omit it")
        return layout

    @cached_property
    def labelled(self) -> Labelled:
        """All images with their labels."""
        layout = self.layout
        beside = self.rec.with_suffix(".idx")
        idx = self.idx or (beside if beside.is_file() else None)
        identities = number_of_identities(self.rec)
        listing = list_images(
            self.file,
            idx,
            identities=identities is not None or self.vote == "identity" or bool(layout and layout.what == "identity"),
            first_labels=layout is None,
        )
        images = plural(len(listing.keys), "image")
        remarks = [] if idx else [f"there is no idx: found {images} by reading all of {self.rec.name}"]
        if listing.claimed != len(listing.keys):
            remarks.append(f"{self.rec.name} should have {listing.claimed:,} and has {images}")
        if identities is not None and listing.identities is not None:
            found = int(np.count_nonzero(present(listing.identities)))
            if found != identities:
                remarks.append(
                    f"property has {plural(identities, 'identity', 'identities')}, but there are images of {found:,}"
                )

        if layout is None:
            gender, age, group, groups = self.own_genders(listing), None, None, []
        else:
            labels, places = self.read_list(layout, listing, remarks)
            gender, groups = pick(labels.gender, places), labels.groups
            age = None if labels.age is None else pick(labels.age, places)
            group = None if labels.group is None else pick(labels.group, places)
        if listing.identities is not None and (layout is None or layout.what != "identity"):
            voted = vote(listing.identities, gender, remarks, counts=self.vote == "identity")
            gender = voted if self.vote == "identity" else gender
        unknown = int(np.count_nonzero(gender < 0))
        if unknown == len(gender) and self.unknown == "drop":
            raise UserError(f"no image of {self.rec} has a known gender: nothing to pack without --unknown keep")
        if unknown:
            done = "left out (--unknown keep packs them)" if self.unknown == "drop" else "packed with gender -1"
            remarks.append(f"unknown gender: {unknown:,} of {plural(len(gender), 'image')}, {done}")
        return Labelled(listing, gender, age, group, groups, remarks)

    def read_list(self, layout: Layout, listing: Listing, remarks: list[str]) -> tuple[Labels, Places]:
        """The labels of the list, and the place in it of every image; None if its places are the images."""
        places: Places = None
        count = len(listing.keys)
        if layout.what == "identity" and listing.identities is not None:
            places = listing.identities
            known = present(places)
            count, find = len(known), by_identity(known)
        elif layout.what == "key":
            find = by_key(listing.keys)
        elif self.lst:
            find = by_path(self.lst, listing.keys)
        else:
            find = by_stem(listing.keys, listing.identities)
        labels = read_labels(layout, self.stated, find, count)
        if not labels.listed.any():
            raise UserError(
                f"{layout.path} is not about {self.rec}, which has no {layout.what} {labels.stranger!r} nor any other"
            )
        name = layout.path.name
        if labels.wrong:
            remarks.append(
                f"lines of {name} that cannot be understood and are left out: {labels.wrong:,}, the first "
                f"is {labels.first_wrong}"
            )
        if labels.strangers:
            remarks.append(f"lines of {name} about no image: {labels.strangers:,}, the first about {labels.stranger}")
        missing = int(np.count_nonzero(pick(labels.listed.view(np.int8), places) == 0))
        if missing:
            remarks.append(f"{plural(missing, 'image is', 'images are')} not in {name}")
        for label, torn in labels.contradicted.items():
            first = int(torn[0])
            which = f"identity {first}" if layout.what == "identity" else f"record {listing.keys[first]}"
            remarks.append(
                f"{name} contradicts itself about the {label} in {plural(len(torn), 'case')}, taken as unknown; "
                f"the first is {which}"
            )
        return labels, places

    def own_genders(self, listing: Listing) -> npt.NDArray[np.int8]:
        """The gender of each image by the first label of its record; -1 for damaged ones."""
        assert listing.first_labels is not None
        values, codes, counts = np.unique(listing.first_labels, return_inverse=True, return_counts=True)
        texts = [canonical(str(value)) if value == value else "" for value in values.tolist()]
        self.stated.check_values(
            Counter({text: count for text, count in zip(texts, counts.tolist(), strict=True) if text}), str(self.rec)
        )
        return np.array([self.stated.code(text) for text in texts], np.int8)[codes]


def vote(
    identities: npt.NDArray[np.int32], gender: npt.NDArray[np.int8], remarks: list[str], counts: bool
) -> npt.NDArray[np.int8]:
    """The gender of each image by the majority of its identity's images of known gender, -1 for a tie or none.

    Adds remarks on how often images disagree and, if the vote `counts`, on what it changes.
    """
    people = len(present(identities))
    men, women = (np.bincount(identities[(gender == g) & (identities >= 0)], minlength=people) for g in (1, 0))
    winner = np.where(men > women, 1, np.where(women > men, 0, -1)).astype(np.int8)
    voted = pick(winner, identities)
    disagree = int(np.count_nonzero((men > 0) & (women > 0)))
    known = int(np.sum(men + women))
    fewer = int(np.sum(np.minimum(men, women)))
    if disagree:
        counted = plural(int(np.count_nonzero(present(identities))), "identity", "identities")
        remarks.append(
            f"the images of {disagree:,} of {counted} disagree on the gender: "
            f"{fewer:,} of {known:,} images ({percent(fewer / known, 2)}) against the majority"
        )
    if counts:
        outvoted = int(np.count_nonzero((voted >= 0) & (gender >= 0) & (voted != gender)))
        ties = (men == women) & (men > 0)
        gained = int(np.count_nonzero((voted >= 0) & (gender < 0)))
        share = percent(outvoted / max(known, 1), 2)
        remarks.append(f"{plural(outvoted, 'image')} ({share}) outvoted and given the other gender")
        if ties.any():
            lost = int(np.sum((men + women)[ties]))
            tied = plural(int(np.count_nonzero(ties)), "identity", "identities")
            remarks.append(f"{tied} tied: {lost:,} images of unknown gender")
        if gained:
            remarks.append(f"{plural(gained, 'image')} without a known gender got that of the identity")
    return voted


def present(identities: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Whether there are images of an identity, for each number up to the largest."""
    there = np.zeros(int(identities.max(initial=-1)) + 1, np.bool_)
    there[identities[identities >= 0]] = True
    return there


def pick(values: npt.NDArray[T], places: Places) -> npt.NDArray[T]:
    """The value at the place of each image, -1 for images without one."""
    return values if places is None else np.where(places >= 0, values[places], values.dtype.type(-1))


def listed(values: npt.NDArray[np.generic] | None, part: slice, absent: Any) -> Any:
    """Part of a column as Python's numbers; repeats `absent` if there is no such column."""
    return repeat(absent) if values is None else values[part].tolist()
