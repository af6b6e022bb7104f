"""Reads tables a row at a time: CSV, TSV, lists separated by spaces, and Parquet."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from shard_tools.base.errors import UserError, one_line

SEPARATORS = ("\t", ",", ";", "|")
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

    def rows(self, wanted: Sequence[str]) -> Iterator[Row]:
        """All rows, with the values of the columns `wanted` in that order; nothing is held.

        A row with too few or too many fields has a `problem`. Raises UserError where the file cannot be read.
        """
        if not self.separator:
            yield from _parquet_rows(self.path, wanted)
            return
        at = [self.columns.index(name) for name in wanted]
        expected = len(self.columns)
        for line, fields in _fields(self.path, self.separator, self.before, whole=expected == 1):
            if len(fields) == expected:
                yield Row(line, tuple([fields[i].strip() for i in at]))
            else:
                values = tuple(fields[i].strip() if i < len(fields) else "" for i in at)
                yield Row(line, values, f"line {line} of {self.path.name} has {len(fields)} fields, not {expected}")


def open_table(path: Path, columns: Sequence[str] = (), unnamed: str = "image") -> TableFile:
    """The table in a file: Parquet, or text in UTF-8 whose first line shows what separates its fields.

    The first line names the columns unless `columns` does. Two habits of CelebA's lists are understood: a first line
    that is a lone number counts the rows, and where names between spaces are one fewer than the fields, the first
    column is `unnamed`. Raises UserError if there is no such file, it has no rows or it cannot be read.
    """
    with _readable(path), path.open("rb") as file:
        parquet = file.read(len(PARQUET)) == PARQUET
    if parquet:
        return TableFile(path=path, columns=_parquet_columns(path), separator="", before=0)

    with _readable(path), path.open(encoding="utf-8-sig") as text:
        head = list(islice((line for line in text if line.strip()), 2))
    before = int(len(head) == 2 and head[0].strip().isdigit() and len(_split(head[1])) > 1)
    separator = _separator(head[before]) if head else " "
    whole = len(columns) == 1 or (not columns and bool(head) and len(_split(head[before])) == 1)
    lines = list(islice(_fields(path, separator, before, whole), 2))
    if len(lines) < 2 - bool(columns):
        raise UserError(f"{path} has no rows: is it the right file?")
    first = len(lines[-1][1])
    if columns:
        if len(lines[0][1]) != len(columns):
            raise UserError(
                f"line {lines[0][0]} of {path} has {len(lines[0][1])} fields, but {len(columns)} columns are named: "
                f"{', '.join(columns)}"
            )
        names = tuple(columns)
    else:
        before, header = lines[0]
        names = tuple(name.strip() for name in header)
        if separator == " " and first == len(names) + 1:
            names = (unnamed, *names)
    twice = next((name for name in names if name and names.count(name) > 1), "")
    if twice:
        raise UserError(f"{path} has two columns {twice!r}: rename one")
    return TableFile(path=path, columns=names, separator=separator, before=before)


def _separator(line: str) -> str:
    """What separates the fields of a line."""
    most = max(SEPARATORS, key=line.count)
    return most if most in line else " "


def _split(line: str) -> list[str]:
    separator = _separator(line)
    return line.split() if separator == " " else line.split(separator)


def _fields(path: Path, separator: str, before: int, whole: bool) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of all lines after the first `before` ones; of one field if `whole`, spaces or not."""
    with _readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        for _ in range(before):
            next(file, "")
        if separator == " ":
            for line, text in enumerate(file, before + 1):
                fields = [text.strip()] if whole else text.split()
                if fields and fields[0]:
                    yield line, fields
            return
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        try:
            for fields in reader:
                if fields:
                    yield before + reader.line_num, fields
        except csv.Error as error:
            raise UserError(f"line {before + reader.line_num} of {path} cannot be read: {error}") from None


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
    return str(value).strip()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Makes UserErrors of what reading a file can raise."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}): convert it, with iconv for example") from None
    except FileNotFoundError:
        raise UserError(f"no table {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or one_line(error)}") from None
    except ValueError as error:  # pyarrow's errors about a damaged file are
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
