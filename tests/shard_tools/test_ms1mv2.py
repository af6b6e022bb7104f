from __future__ import annotations

import csv
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.images import ImageError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources import Record
from shard_tools.sources.ms1mv2 import Ms1mv2
from tests.conftest import REAL_DATA
from tests.shard_tools.labelled_records import IMAGES, PEOPLE, SUBJECTS, genders, source
from tests.shard_tools.record_file import Item, insightface, record, write_idx, write_records


@pytest.mark.parametrize("scalar", [False, True])
def test_images_of_insightfaces_layout_have_their_identity_as_subject(tmp_path: Path, scalar: bool) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, insightface(PEOPLE, scalar))
    faces = source(rec)
    records = list(faces.records())
    assert [record.row for record in records] == list(range(10))
    assert [record.name for record in records] == [f"{s}/{key:08d}" for key, s in enumerate(SUBJECTS, 1)]
    assert [record.subject for record in records] == SUBJECTS
    assert [record.gender for record in records] == [key % 2 for key in range(1, 11)]
    assert [faces.read(record) for record in records] == IMAGES
    assert faces.remarks()[0].startswith("the images of 3 of 4 identities disagree")


def test_an_idx_may_be_shuffled_or_missing(rec: Path) -> None:
    expected = list(source(rec).records())
    lines = rec.with_suffix(".idx").read_text().splitlines()
    rec.with_suffix(".idx").write_text("\n".join(lines[::2] + lines[1::2][::-1]) + "\n")
    assert list(source(rec).records()) == expected
    rec.with_suffix(".idx").rename(rec.with_name("elsewhere.idx"))
    assert list(source(rec, idx=rec.with_name("elsewhere.idx")).records()) == expected
    without = source(rec)
    assert list(without.records()) == expected
    assert "there is no idx" in without.remarks()[0]


def test_ranges_that_contradict_the_images_are_not_believed(tmp_path: Path) -> None:
    items = insightface(PEOPLE)
    items[:10] = [item._replace(label=[float(7 - int(s)), 0.0]) for item, s in zip(items, SUBJECTS, strict=False)]
    write_records(tmp_path / "train.rec", items)
    assert [record.subject for record in source(tmp_path / "train.rec").records()] == [
        str(7 - int(s)) for s in SUBJECTS
    ]


def test_keys_that_no_float32_holds_are_not_taken_from_labels(tmp_path: Path) -> None:
    first = 2**24 + 1
    images = [Item(first + n, [n // 2, 0.0], bytes([n])) for n in range(6)]
    stop = first + len(images)
    ends = [Item(stop + n, [first + 2 * n, first + 2 * n + 2]) for n in range(3)]
    write_records(tmp_path / "train.rec", [*images, *ends, Item(0, [stop, stop + 3])])
    labels = "".join(f"{first + n} {n % 2}\n" for n in range(6))
    records = list(source(tmp_path / "train.rec", labels).records())
    assert genders(records) == {first + n: n % 2 for n in range(6)}
    assert [record.subject for record in records] == ["0", "0", "1", "1", "2", "2"]


def test_a_pickled_source_reads(rec: Path) -> None:
    faces = source(rec)
    records = list(faces.records())
    other = pickle.loads(pickle.dumps(replace(faces)))
    assert [other.read(Record(row=r.row, name=r.name, at=r.at)) for r in records] == IMAGES


def test_damaged_records_are_left_to_the_quarantine(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    offsets = write_records(rec, insightface([*PEOPLE, [b"more"] * 90]))
    whole = rec.read_bytes()
    labels = "".join(f"{key} {key % 2}\n" for key in range(1, 101))
    rec.write_bytes(whole[: offsets[4]] + b"####" + whole[offsets[4] + 4 :])
    for idx in (True, False):
        faces = source(rec, labels)
        failed = []
        for listed in faces.records():
            if listed.rejected:
                failed.append((listed.name, listed.rejected))
                continue
            try:
                faces.read(listed)
            except ImageError as error:
                failed.append((listed.name, str(error)))
        (name, reason) = failed[0]
        assert len(failed) == 1
        assert name == ("1/00000005" if idx else f"byte-{offsets[4]}")
        assert f"train.rec has no whole record at byte {offsets[4]}" in reason
        rec.with_suffix(".idx").unlink(missing_ok=True)


def test_a_record_that_is_another_one_is_not_read(rec: Path) -> None:
    faces = source(rec)
    one, two, *_ = faces.records()
    with pytest.raises(ImageError, match="mislabelled: the record for key 1 has the id 2"):
        faces.read(one._replace(at=two.at))
    with pytest.raises(ImageError, match="mislabelled: it is listed for identity 3, but its label is 0"):
        faces.read(one._replace(name="3/00000001"))


def test_files_without_insightfaces_header_have_no_subjects(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, [Item(key, key % 2, bytes([key])) for key in range(10)])
    records = list(source(rec, None, by="record").records())
    assert [(record.name, record.gender, record.subject) for record in records] == [
        (f"{key:08d}", key % 2, "") for key in range(10)
    ]
    with pytest.raises(UserError, match=r"0 \(5 times\), 1 \(5 times\): state what they mean"):
        list(source(rec, None, by="record", male=None, female=None).records())
    with pytest.raises(UserError, match="not stated: 3 is female, 1 is male"):
        list(source(rec, None, by="record", female="3").records())


def test_first_labels_are_identities_where_the_user_or_a_property_file_says_so(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, [Item(key, key // 4, bytes([key])) for key in range(12)])
    by_identity = source(rec, "0 1\n1 0\n2 1\n", by="identity")
    assert [(r.subject, r.gender) for r in by_identity.records()] == [
        (str(key // 4), [1, 0, 1][key // 4]) for key in range(12)
    ]
    (tmp_path / "property").write_text("5,112,112")
    with_property = source(rec)
    assert [r.subject for r in with_property.records()] == [str(key // 4) for key in range(1, 11)]
    assert "property has 5 identities, but there are images of 3" in with_property.remarks()


def test_paths_are_found_by_the_list_of_im2rec(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, [Item(key, 0.0, bytes([key])) for key in (3, 1, 0, 2)])
    (tmp_path / "train.lst").write_text("3\t0\tb/x.jpg\n1\t0\ta/y.jpg\n0\t0\ta/x.jpg\n2\t0\tb/y.jpg\n9\t0\tno.jpg\n")
    labels = "a/x.jpg 0\na/y.jpg 1\nb/x.jpg 1\n./b/y.jpg 0\nc/y.jpg 1\n"
    faces = source(rec, labels, by="path", lst=tmp_path / "train.lst")
    assert genders(list(faces.records())) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert faces.remarks() == ["lines of labels.txt about no image: 1, the first about c/y.jpg"]


def test_an_idx_of_another_file_is_refused(rec: Path) -> None:
    keys = list(range(1, 15))
    for offsets, says in (
        ([4 * key for key in keys], "is not the idx of .*train.rec has no whole record at byte"),
        ([10**6 + 4 * key for key in keys], r"train\.idx: record 1 is not in .*train\.rec"),
        ([2 * key for key in keys], r"train\.idx: record 1 is not in .*train\.rec"),
    ):
        write_idx(rec, keys, offsets)
        with pytest.raises(UserError, match=says):
            list(source(rec).records())
    write_records(rec, insightface(PEOPLE))
    pairs = [line.split() for line in rec.with_suffix(".idx").read_text().splitlines()]
    write_idx(rec, [int(key) + 1 for key, _ in pairs], [int(offset) for _, offset in pairs])
    with pytest.raises(UserError, match="has the id"):
        list(source(rec).records())
    write_idx(rec, [1, 2, 2], [0, 40, 80])
    with pytest.raises(UserError, match="two records of key 2"):
        list(source(rec).records())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"not a RecordIO file at all, and long enough for a header", record(Item(0, [1.0, 1.0]))):
        (tmp_path / "train.rec").write_bytes(content)
        with pytest.raises(UserError, match="no images in"):
            list(source(tmp_path / "train.rec").records())


def test_options_are_read_from_the_command_line(rec: Path) -> None:
    line = f"--rec {rec} --out out --labels x --by key --male 1 --female -1 --unknown-value -2 9 --vote identity"
    faces = parse_options(Ms1mv2, "shard-tools pack ms1mv2", line.split())
    assert (faces.male, faces.female, faces.unknown_value, faces.vote) == ("1", "-1", ("-2", "9"), "identity")
    assert not faces.near_duplicates


@pytest.fixture
def lfw() -> Path:
    directory = REAL_DATA / "rec" / "lfw_insightface"
    if not directory.is_dir():
        pytest.skip(f"no genuine RecordIO files in {directory}")
    return directory


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", ["key", "identity", "path", "vote"])
def test_real_faces_are_packed_with_the_right_labels(lfw: Path, tmp_path: Path, by: str) -> None:
    rows = table(lfw / "sources.csv")
    code = {"male": "1", "female": "0"}
    lines = {
        "key": [f"{row['key']}\t{code[row['gender']]}" for row in rows],
        "identity": [f"{row['identity']}\t{code[row['gender']]}" for row in table(lfw / "identities.csv")],
        "path": [f"imgs/{row['identity']}/{row['key']}.jpg 0 {code[row['gender']]} 40" for row in rows],
        # The first of every five pictures is predicted wrongly.
        "vote": [f"{row['key']} {int(code[row['gender']]) ^ (n % 5 == 0)}" for n, row in enumerate(rows)],
    }[by]
    (tmp_path / "labels").write_text("\n".join(lines))
    options: Any = {"by": "key", "vote": "identity"} if by == "vote" else {"by": by}
    options |= {"labels": tmp_path / "labels", "male": "1", "female": "0"}
    faces = Ms1mv2(rec=lfw / "train.rec", out=tmp_path / "out", **options)
    pack(faces)
    manifest = read_manifest(tmp_path / "out")
    md5 = {int(row["key"]): row["payload_md5"] for row in table(lfw / "expected_by_key_mxnet.csv")}
    truth = {int(row["key"]): row for row in rows}
    seen = set()
    for name in manifest.splits:
        tars = [path.read_bytes() for path in manifest.shard_paths(name)]
        for row in manifest.index(name):
            key = int(row["key"].decode().rsplit("-", 1)[-1])
            encoded = tars[row["shard"]][row["offset"] : row["offset"] + row["length"]]
            assert hashlib.md5(encoded).hexdigest() == md5[key]
            assert row["gender"] == int(code[truth[key]["gender"]])
            assert row["subject"].decode() == truth[key]["identity"]
            seen.add(key)
    assert seen == truth.keys()
    assert "0 is female, 1 is male" in manifest.convention
    if by == "vote":
        assert "100 images (20.00 %) outvoted and given the other gender" in faces.remarks()
