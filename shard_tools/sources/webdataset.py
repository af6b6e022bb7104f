"""Anyone's WebDataset: tars from any URL that the library webdataset opens, with labels in JSON, texts or a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.parsing import load_json
from shard_tools.base.text_files import decode_text
from shard_tools.images import MAX_BYTES, ImageError
from shard_tools.keys import key_of
from shard_tools.manifest import CLASSES
from shard_tools.sources import Record, Source
from shard_tools.sources.columns import BRACES, Columns, Labeller, stated
from shard_tools.sources.conventions import check_column
from shard_tools.sources.keyed_table import KeyedTable, open_keyed
from shard_tools.sources.tabular import text_of
from shard_tools.sources.tar_stream import Sample, read_samples
from shard_tools.without_torch import without_torch

TABLE = "table:"
KEY = "key"
MAX_TEXT_BYTES = 1 << 20
"""Of a file with labels, which others fill with more than is read here."""


class UnlabelledError(Exception):
    """Why a sample has no label."""


@dataclass(kw_only=True)
class Webdataset(Source):
    """Packs the tars of a WebDataset. A label is taken from a field of a JSON file, json:gender or json:face.gender;
    from a text file, cls; or from a column of --table, table:gender.

    Each URL is read once, from its beginning to its end, by one process; again only if the pack is killed meanwhile.
    Until they are packed, its images take as much space again below --out.
    """

    streamed: ClassVar[bool] = True

    urls: tuple[str, ...]
    """URLs of the tars: paths, http(s):, pipe:COMMAND or others that webdataset opens, with {000..012} for several.
    They are stored in the manifest and in each sample: do not put a password in them."""
    image: str = "jpg;jpeg;png;webp;bmp"
    """Suffixes of the images, separated by semicolons; the first that a sample has is taken."""
    label: str
    """Where the gender is: json:FIELD, cls or table:COLUMN."""
    male: tuple[str, ...] = ()
    """Values that mean male; words such as Male, m or man need not be given."""
    female: tuple[str, ...] = ()
    """Values that mean female; words such as Female, f or woman need not be given."""
    unknown_value: tuple[str, ...] = ()
    """Values that mean unknown in any label; empty ones and words such as unknown need not be given."""
    age: str = ""
    """Where the age is: a number, or a bin such as 20-29, which becomes its middle, 24.5. An image whose age is no such
    thing, nor a word for unknown, is left out, whatever its gender."""
    ages: dict[str, str] = field(default_factory=dict)
    """Values that are neither, such as 60+, each followed by its age."""
    subject: str = ""
    """Where the subject is; all images of a subject go to one split."""
    group: str = ""
    """Where the race is, or another group."""
    groups: dict[str, str] = field(default_factory=dict)
    """Values of the group, each followed by its name; without any, they are names."""
    split: str = ""
    """Where the data set's own split is."""
    splits: dict[str, str] = field(default_factory=dict)
    """Values of the split, each followed by train, val or test; words such as training need not be given."""
    optional: tuple[str, ...] = ()
    """Which of age, subject, group and split a sample may lack; they are unknown then."""
    table: Path | None = None
    """CSV, TSV or Parquet file with labels by key."""
    table_key: str = "key"
    """Its column with the samples' keys, as they are in the tars."""

    @property
    def convention(self) -> str:
        return self.columns.describe()

    def records(self) -> Iterator[Record]:
        if self.table:
            if not self.table_columns:
                raise UserError(f"no label is taken from {self.table}: give one as table:COLUMN, or no --table")
            open_keyed(self.table, self.table_key, self.table_columns)
        elif self.table_columns:
            raise UserError(f"{TABLE}{self.table_columns[0]} is a column of a table: give its file as --table")
        for number, url in enumerate(expanded(self.urls)):
            yield Record(row=number, name=url, at=last_change(url))

    def expand(self, listed: Iterable[Record]) -> Iterator[tuple[Record, Callable[[], bytes]]]:
        for file in listed:
            for row, sample in enumerate(read_samples(file.name, self.most)):
                name = f"{file.name}::{sample.key}" if sample.key else file.name
                yield self._record(row, name, sample), partial(self._image, sample)

    def read(self, record: Record) -> bytes:
        raise ImageError("its tar is read once")

    def key(self, name: str) -> str:
        return key_of(name.rpartition("::")[2])

    def check_genders(self, female: int, male: int) -> None:
        if not female and not male:
            raise UserError(f"no sample has a known gender in {self.label}: state the values with --male and --female")
        for count, values, name in ((female, self.female, CLASSES[0]), (male, self.male, CLASSES[1])):
            if values and not count:
                raise UserError(f"no sample is {name}, which {' or '.join(values)} in {self.label} is stated to mean")

    @cached_property
    def columns(self) -> Columns:
        """Where labels are and what their values mean."""
        given = Columns(
            image=KEY,
            gender=self.label,
            male=self.male,
            female=self.female,
            unknown=self.unknown_value,
            age=self.age,
            ages=self.ages,
            subject=self.subject,
            group=self.group,
            groups=self.groups,
            split=self.split,
            splits=self.splits,
            optional=self.optional,
        )
        check_column(self.label.rpartition(":")[2].rpartition(".")[2], self.male, self.female, "the tars")
        return stated(given, None).columns

    @cached_property
    def places(self) -> dict[str, bool]:
        """Where labels are, and whether a sample may lack them."""
        places: dict[str, bool] = {}
        for label, spec in self.columns.labels().items():
            for place in BRACES.findall(spec) or [spec]:
                places[place] = places.get(place, True) and label in self.optional
        places.pop(KEY, None)
        return places

    @cached_property
    def table_columns(self) -> list[str]:
        """The columns of the table that have labels."""
        return [place.removeprefix(TABLE) for place in self.places if place.startswith(TABLE)]

    @cached_property
    def rows(self) -> KeyedTable:
        """The table."""
        assert self.table
        return KeyedTable(self.table, self.table_key, self.table_columns)

    @cached_property
    def labeller(self) -> Labeller:
        """Makes labels of the values at `places`."""
        return Labeller(self.columns, "webdataset", (KEY, *self.places))

    @cached_property
    def suffixes(self) -> list[str]:
        """Suffixes of images."""
        return [suffix.strip().lower().removeprefix(".") for suffix in self.image.split(";") if suffix.strip()]

    @cached_property
    def most(self) -> dict[str, int]:
        """The bytes that files may have, by the suffixes that are used."""
        labels = dict.fromkeys((place.partition(":")[0] for place in self.places), MAX_TEXT_BYTES)
        return dict.fromkeys(self.suffixes, MAX_BYTES) | labels

    def _record(self, row: int, name: str, sample: Sample) -> Record:
        """A sample with its labels, or why it is rejected."""
        rejected = sample.problem
        if not rejected and not any(suffix in sample.members for suffix in self.suffixes):
            rejected = f"it has no image with the suffix {' or '.join(self.suffixes)}"
        if rejected:
            return Record(row=row, name=name, rejected=rejected)
        try:
            values = self._values(sample)
        except UnlabelledError as error:
            return Record(row=row, name=name, rejected=str(error))
        return Record(row, name, *self.labeller(values)[1])

    def _image(self, sample: Sample) -> bytes:
        return next(sample.members[suffix] for suffix in self.suffixes if suffix in sample.members)

    def _values(self, sample: Sample) -> tuple[str, ...]:
        """What the labeller wants of a sample; UnlabelledError if a label that is needed is not there."""
        found: dict[str, str | None] = {KEY: sample.key}
        if self.table_columns:
            found |= self._row(sample.key)
        suffixes = {place.partition(":")[0] for place in self.places if ":" in place}
        documents = {name: parsed(name, sample.members[name]) for name in suffixes if name in sample.members}
        for place, optional in self.places.items():
            suffix, colon, path = place.partition(":")
            if place not in found:
                content = sample.members.get(suffix)
                found[place] = field_of(documents.get(suffix), path, place) if colon else text(suffix, content)
            if found[place] is None and not optional:
                raise UnlabelledError(f"it has no {place}")
        return tuple(found[name] or "" for name in self.labeller.wanted)

    def _row(self, key: str) -> dict[str, str]:
        """The values of a sample in the table, by place."""
        assert self.table
        try:
            values = self.rows.get(key)
        except ValueError as error:
            raise UnlabelledError(str(error)) from None
        if values is None:
            raise UnlabelledError(f"{self.table.name} has no row for its key (the first row's is {self.rows.first!r})")
        return dict(zip([TABLE + name for name in self.table_columns], values, strict=True))


def expanded(urls: Iterable[str]) -> list[str]:
    """All URLs that these patterns stand for, as webdataset expands them; UserError if that cannot be done."""
    with without_torch():
        from webdataset.shardlists import expand_urls

    try:
        found = [url for pattern in urls for url in expand_urls(pattern)]
    except (ValueError, AssertionError) as error:
        raise UserError(f"--urls: {one_line(error)}; give several tars as in a-{{000..012}}.tar") from None
    if not found:
        raise UserError("--urls names no tar: give them as in a-{000..012}.tar")
    if "-" in found:
        raise UserError("--urls -: standard input can be read by one process alone; give pipe:COMMAND")
    return found


def last_change(url: str) -> int:
    """When a local file was changed, ns; -1 for other URLs. UserError if it is not there."""
    with without_torch():
        from webdataset.gopen import rewrite_url

    parts = urlsplit(rewrite_url(url))
    if parts.scheme not in ("", "file"):
        return -1
    path = Path(url2pathname(parts.path) if parts.scheme else rewrite_url(url))
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; give tars as --urls, as in a-{{000..012}}.tar"
        ) from None


def parsed(suffix: str, content: bytes) -> Any:
    """The content of a JSON file; UnlabelledError if it is none."""
    try:
        return load_json(content)
    except ValueError as error:
        raise UnlabelledError(f"its {suffix} is no JSON: {one_line(error)}") from None


def field_of(document: Any, path: str, place: str) -> str | None:
    """The text of a field, `a.b` being `b` in `a`; None if there is none, UnlabelledError if it is no single value."""
    if isinstance(document, dict) and path in document:
        value = document[path]
    else:
        value = document
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
    if isinstance(value, (dict, list)):
        raise UnlabelledError(f"its {place} is not a single value")
    return text_of(value)


def text(suffix: str, content: bytes | None) -> str | None:
    """The content of a text file; UnlabelledError if it is none."""
    try:
        return content if content is None else decode_text(content).strip()
    except UnicodeError:
        raise UnlabelledError(f"its {suffix} is not text in UTF-8") from None
