"""Any table: CSV, TSV, lists and Parquet whose columns have the files of the images and their labels."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from shard_tools.base.errors import UserError, unknown
from shard_tools.base.text import plural
from shard_tools.images import ImageError
from shard_tools.manifest import CLASSES
from shard_tools.sources import ImageDirectory, Record
from shard_tools.sources.columns import Columns, Headers, Label, Labeller, stated
from shard_tools.sources.conventions import check_rows, is_swapped
from shard_tools.sources.paths import SAMPLE, find_paths, outside
from shard_tools.sources.tabular import TableFile, open_table

SHOWN = 10
"""Different reasons that are counted to name the one that most rows have."""


class Part(NamedTuple):
    """One table and what reads its rows; the image files themselves if there is no table."""

    name: str
    file: TableFile | None
    labeller: Labeller


@dataclass(kw_only=True)
class Table(Columns, ImageDirectory):
    """Packs images that tables list. Which columns have which labels is given by options, by a mapping, or by both.

    A column is given by its name, or as text with names in braces: {directory}/{file}. `table` is one too: the name of
    the table's file, without suffix. Rows of the same image in several tables add up; without a table, each image file
    is a row with the column `image`.
    """

    table: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """CSV, TSV, Parquet or a list separated by spaces; give the option again for each further one."""
    mapping: Path | None = None
    """fairface, celeba, afad, lfw, packed (what shard-tools inspect --csv writes), or a TOML file whose keys are these
    options; options given here override it."""

    @property
    def convention(self) -> str:
        return f"table: {stated(self, self.mapping).columns.describe()}"

    @property
    def numbering(self) -> str:
        # CelebA's and LFW's are their own; in any other table, 1 may be anybody.
        return str(self.mapping) if str(self.mapping) in ("celeba", "lfw") and not self.subject else ""

    def records(self) -> Iterator[Record]:
        columns, parts = self._parts()
        self._remarks += _absent(columns, parts)
        if not self.images.is_dir():
            raise UserError(f"no directory {self.images}: give the one with the images as --images")
        counts = dict.fromkeys((-1, 0, 1), 0)
        reasons: Counter[str] = Counter()
        labelled = self._merged(parts) if len(parts) > 1 else self._streamed(parts[0])
        for row, (name, label) in enumerate(labelled):
            if label.rejected:
                if label.rejected in reasons or len(reasons) < SHOWN:
                    reasons[label.rejected] += 1
            else:
                counts[label.gender] += 1
            yield Record(row, name, *label)
        self._check_genders(columns, parts, counts, reasons)

    def read(self, record: Record) -> bytes:
        if outside(record.name):
            raise ImageError("its path leads outside --images")
        return super().read(record)

    def _parts(self) -> tuple[Columns, list[Part]]:
        """The tables, opened, and what their columns mean; UserError if a column that is needed is in none."""
        columns, headers, expects = stated(self, self.mapping)
        advice = f"--mapping {self.mapping} expects {expects}"
        if expects and not self.table:
            raise UserError(f"no --table: {advice}")
        try:
            return columns, self._opened(columns, headers)
        except UserError as error:
            raise UserError(f"{error} ({advice})" if expects else str(error)) from None

    def _opened(self, columns: Columns, headers: Headers) -> list[Part]:
        """The tables as parts."""
        parts = []
        for path in self.table:
            header = next((names for glob, names in headers.items() if fnmatch(path.name, glob)), columns.columns)
            file = open_table(path, header, unnamed=columns.image or "image")
            labeller = Labeller(columns, path.name, file.columns, file.comment_note)
            if labeller.gender in file.columns:
                check_rows(file, labeller.gender, labeller.gender_of)
            parts.append(Part(path.name, file, labeller))
        if not parts:
            name = "the paths of the image files"
            parts = [Part(name, None, Labeller(columns, name, (columns.image or "image",)))]
        known = tuple(dict.fromkeys(name for part in parts for name in part.labeller.known))
        where = ", ".join(part.name for part in parts)
        note = next((part.file.comment_note for part in parts if part.file and part.file.comment_note), "")
        if not columns.gender:
            raise UserError(f"which column has the gender? Give it as --gender; {where} has {', '.join(known)}{note}")
        for label, column in columns.labels().items():
            if label not in columns.optional and not any(label in part.labeller.labels for part in parts):
                raise UserError(f"{unknown(f'column of {where}', column, known)}{note}")
        return parts

    def _rows(self, part: Part) -> Iterator[tuple[str, Label]]:
        """Image file and label of every row of a table."""
        if not part.file:
            yield from map(part.labeller, zip(self.files(), strict=True))
            return
        read = self._read(part.file, part.labeller)
        first = list(islice(read, SAMPLE))
        paths = find_paths(self.images, [name for _, name, label in first if name and not label.rejected])
        if paths.elsewhere:
            self._remarks.append(f"paths of {part.name} begin with {paths.elsewhere}, which is taken for --images")
        missing = ""
        found = False
        for line, listed, label in chain(first, read):
            name = paths.below(listed)
            wrong = label.rejected
            if not wrong and (not name or name.endswith("/")):
                wrong = "it has no image"
            if not wrong and not found:
                found = paths.has(name)
                missing = missing or listed
            if not wrong and outside(name):
                wrong = "its path leads outside --images"
            yield name or f"line {line} of {part.name}", Label(rejected=wrong) if wrong else label
        if missing and not found:
            raise paths.none_found(part.name, missing)

    @staticmethod
    def _read(file: TableFile, labeller: Labeller) -> Iterator[tuple[int, str, Label]]:
        """Line, image file as the table has it, and label of every row."""
        for line, values, problem in file.rows(labeller.wanted):
            name, label = labeller(values)
            yield line, name, Label(rejected=problem) if problem else label

    def _streamed(self, part: Part) -> Iterator[tuple[str, Label]]:
        """The rows of the only table as they come: there may be millions."""
        hashes = array("q")  # 8 bytes a row, to count at least the repeated ones
        for name, label in self._rows(part):
            hashes.append(hash(name))
            yield name, label
        sorted_hashes = np.frombuffer(hashes, dtype=np.int64) if hashes else np.empty(0, dtype=np.int64)
        sorted_hashes.sort()  # where they are: numpy's unique would take several times as much
        again = int(np.count_nonzero(sorted_hashes[1:] == sorted_hashes[:-1]))
        if again:
            self._remarks.append(f"rows of {part.name} whose image an earlier row has already: {again}")

    def _merged(self, parts: list[Part]) -> Iterator[tuple[str, Label]]:
        """The images of all tables, each with its labels in any of them, in the order of their first rows."""
        held: dict[str, list[tuple[int, Label]]] = {}
        same: dict[tuple[int, Label], tuple[int, Label]] = {}  # there are few different ones: hold each once
        for number, part in enumerate(parts):
            for name, label in self._rows(part):
                entry = (number, label)
                held.setdefault(name, []).append(same.setdefault(entry, entry))
        for name, entries in held.items():
            yield name, _joined(entries, parts)

    @staticmethod
    def _check_genders(columns: Columns, parts: list[Part], counts: dict[int, int], reasons: Counter[str]) -> None:
        """Raises UserError if the stated convention cannot be right."""
        values = sum((part.labeller.genders for part in parts), start=Counter[str]())
        found = ", ".join(f"{value!r} ({plural(count, 'time')})" for value, count in values.most_common())
        where = ", ".join(part.name for part in parts)
        contradicting = {reason: times for reason, times in reasons.items() if reason.endswith("about its gender")}
        if is_swapped(counts[0] + counts[1], sum(contradicting.values())):
            who = next(iter(contradicting)).removesuffix(" about its gender")
            images = plural(sum(contradicting.values()), "image")
            raise UserError(f"{who} about the gender of {images}: are male and female swapped in one?")
        if not counts[0] and not counts[1]:
            ((reason, times),) = reasons.most_common(1) or [("", 0)]
            if not found or (not counts[-1] and not reason.startswith("its gender ")):
                raise UserError(f"no row of {where} can be used, {times} because {reason}")
            raise UserError(
                f"no row of {where} gives a gender, its column {columns.gender} has {found}: state the values with "
                "--male and --female"
            )
        for gender, values_of in enumerate((columns.female, columns.male)):
            if values_of and not counts[gender]:
                raise UserError(
                    f"no row of {where} is {CLASSES[gender]}, which {' or '.join(values_of)} is stated to mean: "
                    f"the column {columns.gender} has {found}"
                )


def _absent(columns: Columns, parts: list[Part]) -> list[str]:
    """A line for each label whose column no table has."""
    return [
        f"no table has a column {column}: the {label} is unknown"
        for label, column in columns.labels().items()
        if not any(label in part.labeller.labels for part in parts)
    ]


def _joined(entries: list[tuple[int, Label]], parts: list[Part]) -> Label:
    """The labels of all entries together, each a table's number and its label; rejected where they disagree."""
    rejected = next((label.rejected for _, label in entries if label.rejected), "")
    if rejected:
        return Label(rejected=rejected)
    if not any("gender" in parts[number].labeller.labels for number, _ in entries):
        return Label(rejected="no table with genders has it")
    joined = Label()
    for field, nothing in zip(Label._fields[:-1], Label()[:-1], strict=True):
        values = {getattr(label, field): parts[number].name for number, label in reversed(entries)}
        values.pop(nothing, None)
        if len(values) > 1:
            names = sorted(set(values.values()))
            who = f"{' and '.join(names)} disagree" if len(names) > 1 else f"rows of {names[0]} disagree"
            return Label(rejected=f"{who} about its {field}")
        if values:
            joined = joined._replace(**{field: next(iter(values))})
    return joined
