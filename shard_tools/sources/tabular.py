"""Reads tables a row at a time: CSV, TSV, lists separated by spaces, and Parquet."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.text import plural
from shard_tools.base.text_files import check_no_pipe, not_text, open_text

SEPARATORS = ("\t", ";", ",", "|")
QUOTED = re.compile(r'"[^"]*"')
STATED_SEPARATOR = re.compile(r'"?sep=(.)"?;*,*\s*', re.IGNORECASE)
"""Excel's first line that states the separator."""
PARQUET = b"PAR1"
"""First bytes of a Parquet file."""


class Row(NamedTuple):
    """One row: the values asked for, without space around them and empty where there is none."""

    line: int
    """Where it ends in the file, from 1; of a Parquet file the number of the row."""
    values: tuple[str, ...]
    problem: str = ""
    """What is wrong with the row as a whole."""


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A table whose columns are known; `open_table` finds them."""

    path: Path
    columns: tuple[str, ...]
    separator: str
    """Between fields: one of SEPARATORS, a space for any white space, or nothing in a Parquet file."""
    before: int
    """Lines before the first row."""

    @property
    def comment_note(self) -> str:
        """What to add to an error about its columns where a comment may have been read as their names; often empty."""
        if not (self.separator and self.before and self.columns[0].startswith("#")):
            return ""
        return f"; line {self.before} of {self.path.name} was read as the column names: remove it if it is a comment"

    def rows(self, wanted: Sequence[str]) -> Iterator[Row]:
        """All rows, with the values of the columns `wanted` in that order; nothing is held.

        A row with too few or too many fields has a `problem`. Raises UserError where the file cannot be read.
        """
        if not self.separator:
            yield from _parquet_rows(self.path, wanted)
            return
        at = [self.columns.index(name) for name in wanted]
        expected = len(self.columns)
        for line, fields in _fields(self.path, self.separator, self.before, expected):
            if len(fields) == expected or (len(fields) > expected and not any(map(str.strip, fields[expected:]))):
                yield Row(line, tuple([fields[i].strip() for i in at]))
            else:
                values = tuple(fields[i].strip() if i < len(fields) else "" for i in at)
                yield Row(
                    line, values, f"line {line} of {self.path.name} has {plural(len(fields), 'field')}, not {expected}"
                )


class Head(NamedTuple):
    """How a table of text begins."""

    before: int
    """Lines before the column names, or before the first row if there are none: comments, sep=;, a count of rows."""
    separator: str
    """Between fields: one of SEPARATORS, or a space for any white space."""
    line: int
    """Number of the first line after them that is not blank; 0 if there is none."""
    text: str
    """That line."""


def open_table(path: Path, columns: Sequence[str] = (), unnamed: str = "image") -> TableFile:
    """The table in a file: Parquet, or text whose beginning shows what separates its fields, as `find_head` reads it.

    The first line names the columns unless `columns` does. Where names between spaces are one fewer than the fields, as
    in CelebA's list, the first column is `unnamed`. Raises UserError if there is no such file, it has no rows or it
    cannot be read.
    """
    check_no_pipe(path)
    with _readable(path), path.open("rb") as file:
        parquet = file.read(len(PARQUET)) == PARQUET
    if parquet:
        names = _parquet_columns(path)
        _check_names(path, names)
        return TableFile(path=path, columns=names, separator="", before=0)

    before, separator, _, first_line = find_head(path)
    whole = len(columns) == 1 or (not columns and len(_split(first_line, separator)) == 1)
    lines = list(islice(_fields(path, separator, before, 1 if whole else 0), 2))
    if len(lines) < 2 - bool(columns):
        raise UserError(f"{path} has no rows: is it the right file?")
    first = lines[-1][1]
    if columns:
        if len(lines[0][1]) != len(columns):
            raise UserError(
                f"line {lines[0][0]} of {path} has {plural(len(lines[0][1]), 'field')}, but "
                f"{plural(len(columns), 'column is', 'columns are')} named: "
                f"{', '.join(columns)}"
            )
        names = tuple(columns)
    else:
        before, header = lines[0]
        names = tuple(name.strip() for name in header)
        if separator == " " and len(first) == len(names) + 1:
            names = (unnamed, *names)
        while names and not names[-1] and not "".join(first[len(names) - 1 :]).strip():
            names = names[:-1]  # empty columns at the end, of a spreadsheet
    _check_names(path, names)
    return TableFile(path=path, columns=names, separator=separator, before=before)


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raises UserError if two columns have the same name."""
    twice = next((name for name in names if name and names.count(name) > 1), "")
    if twice:
        raise UserError(f"{path} has two columns {twice!r}: rename one")


def own_spelling(name: str, columns: Sequence[str]) -> str:
    """A column as the table spells it, which may differ in case; the name itself if none or several are meant."""
    if name in columns:
        return name
    alike = [column for column in columns if column.casefold() == name.strip().casefold()]
    return alike[0] if len(alike) == 1 else name


def find_head(path: Path, errors: str = "strict") -> Head:
    """How a table of text begins.

    Excel's sep=; is understood, as are comments that begin with # and a lone number that counts the rows, as in
    CelebA's lists. A line that begins with # and has as many fields as the first other line is no comment. Raises
    UserError if the file cannot be read.
    """
    hashes: list[tuple[int, str]] = []
    others: list[tuple[int, str]] = []
    stated, before = "", 0
    with _readable(path), open_text(path, errors) as file:
        for number, line in enumerate(file, 1):
            found = STATED_SEPARATOR.fullmatch(line) if not stated and not hashes else None
            if found:
                stated, before = found[1], number
            elif line.startswith("#") and not others:
                hashes.append((number, line))
            elif line.strip():
                others.append((number, line))
                if len(others) == 2:
                    break
    separator = stated or _separator(*(line for _, line in others or hashes))
    if len(others) == 2 and others[0][1].strip().isdigit() and not stated:
        counted = _separator(others[1][1])
        if len(_split(others[1][1], counted)) > 1:
            separator, before = counted, others.pop(0)[0]
    if not others:
        return Head(before, separator, *(hashes[0] if hashes else (0, "")))
    fields = len(_split(others[0][1], separator))
    while hashes and len(_split(hashes[-1][1], separator)) == fields:
        others.insert(0, hashes.pop())
    return Head(hashes[-1][0] if hashes and hashes[-1][0] > before else before, separator, *others[0])


def _separator(line: str = "", next_line: str = "") -> str:
    """What separates the fields of a line: the sign that is most often there, those first that the next has as often.

    What is between quotes does not count.
    """
    line, next_line = QUOTED.sub("", line), QUOTED.sub("", next_line)
    there = [sign for sign in SEPARATORS if sign in line]
    return max(there, key=lambda sign: (line.count(sign) == next_line.count(sign), line.count(sign)), default=" ")


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else QUOTED.sub("", line).split(separator)


def _fields(path: Path, separator: str, before: int, expected: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of all lines after the first `before` ones that are not empty.

    `expected` is the number of fields, 0 if unknown; a line between spaces that has one is taken whole.
    """
    with _readable(path), open_text(path, newline="") as file:
        for _ in range(before):
            next(file, "")
        if separator == " ":
            for line, text in enumerate(file, before + 1):
                fields = [text.strip()] if expected == 1 else text.split()
                if fields and fields[0]:
                    yield line, fields
            return
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        last = 0
        try:
            for fields in reader:
                if reader.line_num > last + 1:
                    _check_lines(path, before + last + 1, fields, separator, expected)
                last = reader.line_num
                if fields and (fields[0] or any(map(str.strip, fields))):
                    yield before + last, fields
        except csv.Error as error:
            raise UserError(quoting(f"line {before + last + 1} of {path}", error)) from None


def quoting(where: str, error: csv.Error) -> str:
    """What the message says about an error of csv's strict reader, in the row that begins at `where`."""
    if "NUL" in str(error):
        return f"{where} has a NUL byte: remove it"
    return (
        f"{where} has a quote that is not closed, or closed before its field ends, so the rows after it would be taken "
        'for a part of it: remove the quote, or write "" for a quote within a field'
    )


def _check_lines(path: Path, line: int, fields: list[str], separator: str, expected: int) -> None:
    """Raises UserError if a row of several lines, which begins at `line`, is likely more rows that two quotes join."""
    for place, field in enumerate(fields):
        lines = field.splitlines()
        begins = place + len(_split(lines[0], separator)) if len(lines) > 1 else 0
        ends = len(fields) - place - 1 + len(_split(lines[-1], separator)) if lines else 0
        if expected and begins == ends == expected == len(fields):
            raise UserError(
                f"line {line} of {path} opens a quote that takes in whole rows up to the next quote: remove the quote, "
                'or write "" for a quote within a field'
            )


def _parquet_columns(path: Path) -> tuple[str, ...]:
    from pyarrow.parquet import ParquetFile  # 0.2 s that other tables need not wait for

    with _readable(path), ParquetFile(path) as file:
        if not file.metadata.num_rows:
            raise UserError(f"{path} has no rows: is it the right file?")
        return tuple(file.schema_arrow.names)


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    line = 0
    with _readable(path), ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(wanted), batch_size=10_000):
            columns = [[text_of(value) for value in batch.column(name).to_pylist()] for name in wanted]
            for values in zip(*columns, strict=True):
                line += 1
                yield Row(line, values)


def text_of(value: object) -> str:
    """A value of a Parquet or JSON file as a CSV has it; a whole float, as pandas makes of gaps, as an integer."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape").strip()
    return str(value).strip()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Makes UserErrors of what reading a file can raise."""
    try:
        yield
    except UnicodeError:
        raise not_text(path) from None
    except FileNotFoundError:
        raise UserError(f"no table {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or one_line(error)}") from None
    except ValueError as error:  # pyarrow's errors about a damaged file are
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
