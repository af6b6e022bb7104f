from __future__ import annotations

import csv
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from shard_tools import recordio
from shard_tools.base.errors import UserError
from shard_tools.recordio import RecordError, RecordFile, read_index
from tests.conftest import REAL_DATA
from tests.shard_tools.record_file import MAGIC, Item, record, write_records

GENUINE = [
    "lfw_insightface",
    "lfw_insightface_scalar_png",
    "magic_split",
    "third_party_adaface_man_woman",
    "third_party_dmlc_core",
    "third_party_esraa_faces",
    "utk_im2rec_gender",
    "utk_im2rec_gender_age_race",
    "utk_im2rec_passthrough",
]


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_files_read_as_mxnet_reads_them(name: str) -> None:
    directory = REAL_DATA / "rec" / name
    if not directory.is_dir():
        pytest.skip(f"no genuine RecordIO files in {directory}")
    file = RecordFile(next(directory.glob("*.rec")))
    with (directory / "expected_mxnet.csv").open(newline="") as lines:
        expected = list(csv.DictReader(lines))
    records = [file.read(offset) for offset in file.offsets()]
    assert len(records) == len(expected)
    for (header, image), row in zip(records, expected, strict=True):
        assert hashlib.md5(image).hexdigest() == row["payload_md5"]
        assert (header.flag, header.id, header.id2) == (int(row["flag"]), int(row["id"]), int(row["id2"]))
        assert header.labels == tuple(map(float, row["label"].split(";")))

    by_key = directory / "expected_by_key_mxnet.csv"
    if by_key.exists():
        keys, offsets = read_index(directory / "train.idx")
        offset_of = dict(zip(keys.tolist(), offsets.tolist(), strict=True))
        with by_key.open(newline="") as lines:
            md5 = {int(row["key"]): row["payload_md5"] for row in csv.DictReader(lines)}
        assert md5.keys() == offset_of.keys()
        for key, expected_md5 in md5.items():
            assert hashlib.md5(file.read(offset_of[key])[1]).hexdigest() == expected_md5


@pytest.mark.parametrize("where", [0, 4, 8, 5, 2000])
@pytest.mark.parametrize("label", [3.0, [3.0, 0.0], [3.0, 0.0, 1.0]])
def test_records_in_parts_get_their_magic_back(tmp_path: Path, where: int, label: float | list[float]) -> None:
    image = bytes(range(1, 200)) * 20
    image = image[:where] + MAGIC + image[where:] + MAGIC
    offsets = write_records(tmp_path / "a.rec", [Item(1, label, image), Item(2, label, MAGIC * 3), Item(3, 0.0)])
    file = RecordFile(tmp_path / "a.rec")
    assert list(file.offsets()) == offsets
    assert [file.read(offset)[1] for offset in offsets] == [image, MAGIC * 3, b""]
    assert file.header(offsets[0]).labels == tuple(np.atleast_1d(label))


def test_a_magic_in_the_header_itself_is_put_back(tmp_path: Path) -> None:
    key = struct.unpack("<Q", MAGIC + MAGIC)[0]
    offsets = write_records(tmp_path / "a.rec", [Item(key, 1.0, b"image")], idx=False)
    header, image = RecordFile(tmp_path / "a.rec").read(offsets[0])
    assert (header.id, header.labels, image) == (key, (1.0,), b"image")


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error_not_the_end_of_the_process(tmp_path: Path) -> None:
    """A map of it would end the process with SIGBUS, as it would where network storage fails."""
    offsets = write_records(tmp_path / "a.rec", [Item(n, [1.0] * 20, bytes([n]) * 9000) for n in range(20)])
    file = RecordFile(tmp_path / "a.rec")
    os.truncate(tmp_path / "a.rec", offsets[10] + 200)
    assert list(file.offsets())[:11] == offsets[:11]
    assert file.read(offsets[9])[1] == bytes([9]) * 9000
    for read in (file.read, file.header):
        with pytest.raises(RecordError, match=r"(has become shorter|the file ends at byte)"):
            read(offsets[11])
    with pytest.raises(RecordError, match=f"at byte {offsets[10]}: the file, of .* bytes .*, has become shorter"):
        file.read(offsets[10])


@pytest.mark.parametrize("searched", [8, 11, 64])
def test_the_next_magic_is_found_wherever_a_search_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searched: int
) -> None:
    offsets = write_records(tmp_path / "a.rec", [Item(n, 0.0, MAGIC[:3] + bytes([n]) * (n + 30)) for n in range(20)])
    content = bytearray((tmp_path / "a.rec").read_bytes())
    for number in (3, 4, 11):
        content[offsets[number]] ^= 1
    (tmp_path / "a.rec").write_bytes(content)
    monkeypatch.setattr(recordio, "SEARCHED", searched)
    assert list(RecordFile(tmp_path / "a.rec").offsets()) == [o for n, o in enumerate(offsets) if n != 4]


ITEMS = [Item(n, float(n), bytes([n]) * (100 + n)) for n in range(1, 6)]


def spoiled(at: int, new: bytes) -> bytes:
    """The file of ITEMS with other bytes in its third record."""
    before = b"".join(map(record, ITEMS[:2]))
    third = record(ITEMS[2])
    return before + third[:at] + new + third[at + len(new) :] + b"".join(map(record, ITEMS[3:]))


@pytest.mark.parametrize(
    ("at", "new", "says"),
    [
        (0, b"\0", "has no magic number"),
        (4, struct.pack("<I", 1 << 28), "reach beyond the end of the file"),
        (4, struct.pack("<I", 3 << 29 | 127), "has a part of kind 3"),
        (4, struct.pack("<I", 1 << 29 | 127), "has a part of kind 0"),
        (4, struct.pack("<I", 20), "are too few for an image record"),
        (8, struct.pack("<I", 1 << 30), "has no room for the 1,073,741,824 labels"),
    ],
)
def test_a_damaged_record_is_named_and_the_others_are_found(tmp_path: Path, at: int, new: bytes, says: str) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(spoiled(at, new))
    offset = sum(len(record(item)) for item in ITEMS[:2])
    file = RecordFile(path)
    with pytest.raises(RecordError, match=rf"a\.rec has no whole record at byte {offset}: .*{says}"):
        file.read(offset)
    assert [key_at(file, position) for position in file.offsets() if key_at(file, position)] == [1, 2, 4, 5]
    assert any(key_at(file, position) is None for position in file.offsets())


def key_at(file: RecordFile, offset: int) -> int | None:
    """The key of the record at an offset, None if it is damaged."""
    try:
        return file.header(offset).id
    except RecordError:
        return None


@pytest.mark.parametrize("cut", [4, 30, 100, 130])
def test_of_a_file_that_was_cut_off_the_whole_records_are_read(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.rec"
    offsets = write_records(path, ITEMS)
    path.write_bytes(path.read_bytes()[:-cut])
    file = RecordFile(path)
    assert list(file.offsets()) == offsets
    assert [file.header(offset).id for offset in offsets[:-1]] == [1, 2, 3, 4]
    with pytest.raises(RecordError, match=f"at byte {offsets[-1]}"):
        file.read(offsets[-1])


@pytest.mark.parametrize("offset", [-4, 2, 100_000])
def test_an_offset_without_a_record_is_an_error(tmp_path: Path, offset: int) -> None:
    write_records(tmp_path / "a.rec", ITEMS)
    with pytest.raises(RecordError, match=f"at byte {offset}"):
        RecordFile(tmp_path / "a.rec").read(offset)


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.rec").touch()
    assert list(RecordFile(tmp_path / "a.rec").offsets()) == []


def test_an_idx_is_read_in_its_own_order(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_text("7\t40\n\n5 5000000000\r\n0\t0\n")
    keys, offsets = read_index(tmp_path / "a.idx")
    assert keys.tolist() == [7, 5, 0]
    assert offsets.tolist() == [40, 5_000_000_000, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no lines"),
        ("\n\n", "has no lines"),
        ("1\t0\nx\t40\n", "line 2 is not `key offset` but 'x"),
        ("1\t0\n2\t40.5\n", "line 2 "),
        ("1\t0\n2\n", "line 2 "),
        ("1\t0\t3\n", "line 1 "),
        ("1\t99999999999999999999\n", "line 1 "),
        ("\x00\xff\xfe", "line 1 "),
    ],
)
def test_a_damaged_idx_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.idx").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=rf"a\.idx.*{says}"):
        read_index(tmp_path / "a.idx")
