from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import Table, parquet

from hpcgender.data.augmentation import read_augmentation
from shard_tools.base.documents import read_toml
from shard_tools.base.errors import UserError
from shard_tools.base.text_files import read_text
from shard_tools.recordio import read_index
from shard_tools.sources.keyed_table import KeyedTable
from shard_tools.sources.morph import Morph
from shard_tools.sources.tabular import SEPARATORS, open_table, own_spelling
from tests.shard_tools.tables import draw

ROWS = [("a.jpg", "Male"), ("b.jpg", "Female")]
PLAIN = "image,gender\na.jpg,Male\nb.jpg,Female\n"


def rows(path: Path) -> list[tuple[str, ...]]:
    table = open_table(path)
    found = list(table.rows(table.columns))
    assert not any(row.problem for row in found)
    return [row.values for row in found]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-32"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.rstrip().encode(),
        b"sep=;\n" + PLAIN.replace(",", ";").encode(),
        b'"sep=,"\r\n' + PLAIN.encode(),
        "sep=|\n".encode("utf-16") + PLAIN.replace(",", "|").encode("utf-16-le"),
        b"# made on Monday, by hand, with care\n#\n\n" + PLAIN.encode(),
        b"sep=;\n# one, two\n" + PLAIN.replace(",", ";").encode(),
        b" image , gender \n a.jpg , Male \n b.jpg , Female\n",
        b"image,gender,,\na.jpg,Male,,\nb.jpg,Female\n,,,\n ,\n\n",
        b"image,gender\na.jpg,Male,\nb.jpg,Female,,,\n",
        b'"image","gender"\n"a.jpg","Male"\n"b.jpg","Female"\n',
        b"image gender\na.jpg   Male\n b.jpg\tFemale \n",
    ],
)
def test_habits_of_programs_that_write_tables(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert rows(tmp_path / "t.csv") == ROWS


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))).map(str.strip), min_size=1),
    st.sampled_from(SEPARATORS),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    st.sampled_from(("\n", "\r\n")),
    st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-32")),
)
def test_any_text_is_read_as_any_dialect_writes_it(
    tmp_path_factory: pytest.TempPathFactory, notes: list[str], sign: str, quoting: int, end: str, encoding: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "dialects.csv"
    written = [(f"{number}.jpg", note) for number, note in enumerate(notes)]
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=sign, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
        writer.writerows([("image", "note"), *written])
    assert rows(path) == written


def test_what_separates_fields_is_not_what_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('image;"age, years";gender\na.jpg;24,5;m\nb.jpg;"1;2";f\n')
    assert rows(path) == [("a.jpg", "24,5", "m"), ("b.jpg", "1;2", "f")]
    path.write_text("a.jpg;24,5\nb.jpg;25,5\n")
    assert [row.values for row in open_table(path, ("image", "age")).rows(["age"])] == [("24,5",), ("25,5",)]
    path.write_text('image,note\na.jpg,"two lines,\nof one note"\nb.jpg,"6"" tall"\nc.jpg,6" tall\n')
    assert [values[1] for values in rows(path)] == ["two lines,\nof one note", '6" tall', '6" tall']


def test_names_that_begin_as_comments_do_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("# names of men\n#1.jpg m\n#2.jpg f\n3.jpg m\n")
    assert [row.values[0] for row in open_table(path, ("image", "gender")).rows(["image"])] == [
        "#1.jpg",
        "#2.jpg",
        "3.jpg",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'image,note,gender\na,"6 ft,M\nb,ok,F\nc,ok,F\n', "line 2 of"),
        (b'image,note,gender\na,ok,M\nb,"6 ft,F\nc,ok,F\nd,"6 ft,F\ne,ok,M\n', "line 3 of"),
        (b'image,note,gender\na,ok,M\nb,"6 ft,F\nc,ok,F\nd,7 ft",F\ne,ok,M\n', "line 3 of"),
        (b'image,note,gender\na,ok,M\nb,"6" ft,F\n', "line 3 of"),
        (b'image,note,gender\na,"' + b"6 ft,M\n" * 30_000, "line 2 of"),
        (b"image,gender\na,m\nJos\xe9,f\n", "line 3 has the byte 0xe9, in Latin-1 'José"),
        (b"image,gender\na\0,m\n", "line 2 has a NUL byte"),
        (PLAIN.encode("utf-16-le"), "line 1 has a NUL byte"),
        (PLAIN.encode("utf-16")[:-1], "ends within a character"),
        (b"PK\x03\x04....", "workbook of Excel: save it as CSV"),
        (b"\x1f\x8b\x08", "is compressed with gzip: unpack it"),
        (b"<!DOCTYPE html><title>Sign in", "is a web page, not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"image,gender,gender\na,m,m\n", "two columns 'gender'"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_place(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        rows(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(Table.from_arrays([["a.jpg"], ["m"], ["f"]], names=["image", "gender", "gender"]), path)
    with pytest.raises(UserError, match="has two columns 'gender': rename one"):
        open_table(path)


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (open_table, read_text, read_index):
        with pytest.raises(UserError, match="is a pipe, which cannot be read twice: write it to a file first"):
            read(tmp_path / "pipe")


def test_a_column_is_found_in_any_case_if_one_is_meant() -> None:
    assert own_spelling("gender", ("Image", "GENDER")) == "GENDER"
    assert own_spelling("male", ("Male", "MALE")) == "male"
    assert own_spelling("male", ("Male", "male")) == "male"


def test_a_bad_row_of_a_keyed_table_is_bad_for_its_key_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Key,Sex\n1,m\n2\n3,f\n")
    table = KeyedTable(tmp_path / "t.csv", "key", ("sex",))
    assert (table.get("1"), table.get("3"), table.get("4")) == (("m",), ("f",), None)
    with pytest.raises(ValueError, match=r"line 3 of t\.csv has 1 field, not 2"):
        table.get("2")
    (tmp_path / "t.csv").write_text("Key,Sex\n1\n2\n")
    with pytest.raises(UserError, match="line 2 of"):
        KeyedTable(tmp_path / "t.csv", "key", ("sex",))


def test_morphs_csv_and_corrections_are_read_like_any_table(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["000001_0M24.JPG", "000002_0F30.JPG"])
    source = Morph(images=tmp_path / "images", csv=tmp_path / "m.csv", fixes=tmp_path / "f.csv", out=tmp_path / "out")
    (tmp_path / "m.csv").write_bytes(
        "sep=;\nPhoto;ID_NUM;Age;Race\n000001_0M24.JPG;1.0;24,5;W\n000002_0F30.JPG;2;NA;?\n".encode("utf-16")
    )
    (tmp_path / "f.csv").write_bytes("# checked\nSubject,Gender\n2,M\n".encode("utf-8-sig"))
    found = [(r.subject, r.gender, r.age, r.group) for r in source.records()]
    assert found == [("000001", 1, 24.5, "White"), ("000002", 1, 30, "")]
    (tmp_path / "f.csv").write_text('subject,gender,note\n2,M,"sure\n1,F,no\n')
    with pytest.raises(UserError, match=r"line 2 of .*f\.csv has a quote that is not closed"):
        list(source.records())


def test_dates_of_morphs_csv_are_read_in_one_order(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["1.jpg", "2.jpg"])
    source = Morph(images=tmp_path / "images", csv=tmp_path / "m.csv", out=tmp_path / "out")
    header = "photo,id_num,gender,dob,doa\n"
    (tmp_path / "m.csv").write_text(f"{header}1,1,M,05/03/1960,04/04/1980\n2,2,F,25/03/1960,24/03/1980\n")
    assert [record.age for record in source.records()] == [20, 19]
    assert source.remarks()[0] == "dates of m.csv are taken as day/month/year, as some can be nothing else"
    (tmp_path / "m.csv").write_text(f"{header}1,1,M,05/03/1960,04/04/1980\n2,2,F,25/03/1960,03/24/1980\n")
    source = replace(source)
    assert [record.age for record in source.records()] == [19, -1]
    assert source.remarks()[0] == "dates of m.csv that cannot be read: 1, the first dob '25/03/1960' in line 3"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_settings_and_indices_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.toml").write_bytes('preset = "light"\r\nblur = 0.5\r\n'.encode(encoding))
    assert read_augmentation(str(tmp_path / "a.toml")).blur == 0.5
    (tmp_path / "x.idx").write_bytes("0\t0\n1\t40\n".encode(encoding))
    assert [part.tolist() for part in read_index(tmp_path / "x.idx")] == [[0, 1], [0, 40]]
    assert read_text(tmp_path / "x.idx") == "0\t0\n1\t40\n"


def test_settings_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'# ours\nname = "Jos\xe9"\n')
    with pytest.raises(UserError, match=r"a\.toml is not text in UTF-8, line 2 has the byte 0xe9"):
        read_toml(tmp_path / "a.toml")
