from __future__ import annotations

import csv
import hashlib
import pickle
from collections.abc import Sequence
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
from tests.shard_tools.record_file import Item, insightface, record, write_idx, write_records

SIZES = (3, 2, 4, 1)
"""Pictures of each identity in the small file: records 1 to 10 are images, 11 to 14 identities."""
PEOPLE = [[f"picture {n} of {person}".encode() * 9 for n in range(size)] for person, size in enumerate(SIZES)]
IMAGES = [image for person in PEOPLE for image in person]
SUBJECTS = [str(person) for person, size in enumerate(SIZES) for _ in range(size)]
BY_KEY = "".join(f"{key} {key % 2}\n" for key in range(1, 11))


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """A small file in InsightFace's layout."""
    write_records(tmp_path / "train.rec", insightface(PEOPLE))
    return tmp_path / "train.rec"


def source(rec: Path, labels: str | None = BY_KEY, **options: Any) -> Ms1mv2:
    """The source for the file with these labels; 1 is male, 0 is female unless the options say otherwise."""
    if labels is not None:
        (rec.parent / "labels.txt").write_text(labels)
        options["labels"] = rec.parent / "labels.txt"
    return Ms1mv2(rec=rec, out=rec.parent / "out", **{"by": "key", "male": "1", "female": "0", **options})


def genders(records: Sequence[Record]) -> dict[int, int]:
    return {int(record.name.rsplit("/", 1)[-1]): record.gender for record in records}


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


LABELS: dict[str, tuple[str, dict[str, Any]]] = {
    "whitespace": (BY_KEY, {}),
    "commas": (BY_KEY.replace(" ", ","), {}),
    "tabs, other numbers, blank lines": ("\n" + BY_KEY.replace(" ", "\t").replace("\n", ".000\n\n"), {}),
    "words": (BY_KEY.replace(" 1\n", " Male\n").replace(" 0\n", " woman\n"), {"male": None, "female": None}),
    "column names": ("key,gender\n" + BY_KEY.replace(" ", ","), {"by": None}),
    "a table with more": (
        "name;,Sex,Identity,KEY\n" + "".join(f'"a, b",{"fm"[k % 2]},{k + 70},{k}\n' for k in range(1, 11)),
        {"by": "key", "male": "m", "female": "F"},
    ),
    "the column male": ("key male\n" + BY_KEY, {"by": None}),
    "the column female": ("key female\n" + BY_KEY, {"by": None, "female": "1", "male": "0"}),
    "paths": ("".join(f"imgs/{s}/{k}.jpg 2 {k % 2} 30\n" for k, s in enumerate(SUBJECTS, 1)), {"by": "path"}),
    "paths with spaces": (
        "image gender\n" + "".join(f"./my imgs/{k:08d}.jpg {k % 2}\n" for k in range(1, 11)),
        {"by": None},
    ),
    "absolute paths": ("path,gender\n" + "".join(f"/x/{k}.png,{k % 2}\n" for k in range(1, 11)), {"by": None}),
}


@pytest.mark.parametrize("form", LABELS)
def test_lists_of_labels_come_in_many_forms(rec: Path, form: str) -> None:
    labels, options = LABELS[form]
    expected = {key: key % 2 for key in range(1, 11)}
    if form == "the column female":
        expected = {key: 1 - gender for key, gender in expected.items()}
    assert genders(list(source(rec, labels, **options).records())) == expected


def test_age_and_race_are_taken_from_the_list(rec: Path) -> None:
    lines = [f"{s}/{k}.jpg {k % 3 - 1} {k % 2} {k + 20 if k > 1 else -1}" for k, s in enumerate(SUBJECTS, 1)]
    records = list(source(rec, "\n".join(lines), by="path").records())
    assert [record.age for record in records] == [-1, *range(22, 31)]
    assert [record.group for record in records] == [["", "0", "1"][k % 3] for k in range(1, 11)]


def test_labels_by_identity_are_those_of_all_its_images(rec: Path) -> None:
    faces = source(rec, "identity gender\n0 f\n1 m\n2 f\n9 m\n", by=None, male=None, female=None, unknown="keep")
    assert [record.gender for record in faces.records()] == [0] * 3 + [1] * 2 + [0] * 4 + [-1]
    assert faces.remarks() == [
        "1 lines of labels.txt are about no image, the first about 9",
        "1 images are not in labels.txt",
        "1 of 10 images are of unknown gender: packed with gender -1",
    ]


def test_paths_are_found_by_the_list_of_im2rec(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, [Item(key, 0.0, bytes([key])) for key in (3, 1, 0, 2)])
    (tmp_path / "train.lst").write_text("3\t0\tb/x.jpg\n1\t0\ta/y.jpg\n0\t0\ta/x.jpg\n2\t0\tb/y.jpg\n9\t0\tno.jpg\n")
    labels = "a/x.jpg 0\na/y.jpg 1\nb/x.jpg 1\n./b/y.jpg 0\nc/y.jpg 1\n"
    faces = source(rec, labels, by="path", lst=tmp_path / "train.lst")
    assert genders(list(faces.records())) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert faces.remarks() == ["1 lines of labels.txt are about no image, the first about c/y.jpg"]


def test_unknown_genders_are_dropped_or_kept(rec: Path) -> None:
    labels = BY_KEY.replace("4 0", "4 -1").replace("5 1", "5 -1").replace("6 0\n", "")
    dropped = source(rec, labels, unknown_value=("-1",))
    assert sorted(genders(list(dropped.records()))) == [1, 2, 3, 7, 8, 9, 10]
    assert "3 of 10 images are of unknown gender: left out (--unknown keep packs them)" in dropped.remarks()
    assert "1 images are not in labels.txt" in dropped.remarks()
    kept = source(rec, labels, unknown_value=("-1",), unknown="keep")
    assert [key for key, gender in genders(list(kept.records())).items() if gender == -1] == [4, 5, 6]


def test_lines_that_contradict_each_other_are_reported_and_not_believed(rec: Path) -> None:
    faces = source(rec, BY_KEY + "2 0\n3 0\n3 1\n7 0\n")
    assert sorted(genders(list(faces.records()))) == [1, 2, 4, 5, 6, 8, 9, 10]
    assert "labels.txt contradicts itself in 2 cases, taken as unknown; the first is record 3" in faces.remarks()


def test_a_vote_gives_each_identity_one_gender(rec: Path) -> None:
    labels = "1 1\n2 1\n3 0\n4 0\n5 1\n6 0\n7 0\n8 0\n9 -1\n10 1\n"
    options = {"unknown_value": ("-1",), "vote": "identity"}
    faces = source(rec, labels, **options)
    assert genders(list(faces.records())) == {1: 1, 2: 1, 3: 1, 6: 0, 7: 0, 8: 0, 9: 0, 10: 1}
    assert faces.remarks() == [
        "the images of 2 of 4 identities disagree on the gender: 2 of 9 images (22.22 %) are not with the majority",
        "1 images (11.11 %) were outvoted and changed gender",
        "1 identities are tied: their 2 images are of unknown gender",
        "1 images without a known gender got that of their identity",
        "2 of 10 images are of unknown gender: left out (--unknown keep packs them)",
    ]


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (BY_KEY, {"male": None, "female": None}, r"1 \(5 times\), 0 \(5 times\): state .* --male 1 --female 0"),
        (BY_KEY, {"female": None}, "--male and --female must be given together"),
        (BY_KEY, {"female": "1.0"}, "must all be different"),
        (BY_KEY, {"unknown_value": ("0",)}, "must all be different"),
        (BY_KEY, {"male": "2"}, "line 1: the gender '1' was not stated: 0 is female, 2 is male"),
        (BY_KEY.replace("7 1", "7 2"), {}, "line 7: the gender '2' was not stated"),
        (BY_KEY.replace(" 0", " 1"), {}, r"has the genders 1 \(10 times\) only, not both"),
        ("key male\n" + BY_KEY, {"male": "0", "female": "1"}, "1 in its column 'male' cannot mean female"),
        ("key is_female\n" + BY_KEY, {}, "1 in its column 'is_female' cannot mean male"),
        (BY_KEY, {"by": None}, "has no line of column names: give the role of its first column as --by"),
        ("# a, b\nkey,gender\n1,0\n", {"by": None}, "as --by, or remove line 1 if it is a comment"),
        ("key,gender\n1,0\n", {"by": "identity"}, "has no column 'identity'"),
        ("key,age\n1,20\n", {"by": None}, "needs a column gender"),
        ("key,sex,gender\n1,0,0\n", {"by": None}, "needs one column 'gender'"),
        ("1 2 3\n", {}, "line 1 has 3 columns"),
        ("", {}, "is empty"),
        (BY_KEY + "11\n", {}, "line 11: it has not 2 columns"),
        (BY_KEY.replace("3 1", "3.5 1"), {}, "line 3: '3.5' is not a record key"),
        ("1 0 1 x\n", {}, "line 1: its age 'x' is neither 0 to 130 years"),
        ("".join(f"{k + 90} {k % 2}\n" for k in range(9)), {}, "which has no key '90' nor any other"),
        (BY_KEY.replace(" 0", " 2").replace(" 1", " 2"), {"unknown_value": ("2",)}, "only, not both"),
        ("imgs/0/x.jpg 1\n", {"by": "path"}, "line 1: 'x' is not a record key .*--lst"),
        ("0/1.jpg 1\n1/1.jpg 0\n", {"by": "path"}, "line 2: '1/1.jpg' is not in the directory of its identity"),
        (None, {"by": None}, "give a list of genders as --labels, or --by record"),
        (BY_KEY, {"by": "record"}, "give no --labels with it"),
        (BY_KEY, {"lst": Path(__file__)}, "--lst finds records by path"),
        ("0 1\n1 0\n", {"by": "identity", "vote": "identity"}, "--vote identity needs labels of single images"),
        (BY_KEY, {"idx": Path("missing.idx")}, "no file missing.idx: give the one to read as --idx"),
        (BY_KEY, {"rec": Path("missing.rec")}, "no file missing.rec"),
    ],
)
def test_what_cannot_be_right_is_one_line(rec: Path, labels: str | None, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        list(replace(source(rec, labels), **options).records())
    assert "\n" not in str(caught.value)


MANY = [f"{key % 10 + 1} {(key + 1) % 2}\n" for key in range(300)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("3 2", "line 300: the gender '2' was not stated"),
        ("3", "line 300: it has not 2 columns"),
        ("x 1", "line 300: 'x' is not a record key"),
        (f"{2**80} 1", "line 300: '1208925819614629174706176' is not a record key"),
    ],
)
def test_a_bad_line_among_many_is_left_out_and_counted(rec: Path, line: str, why: str) -> None:
    faces = source(rec, "".join(MANY[:299]) + f"{line}\n" + MANY[-1])
    assert genders(list(faces.records())) == {key: key % 2 for key in range(1, 11)}
    assert [remark for remark in faces.remarks() if "cannot be understood" in remark] == [
        remark for remark in faces.remarks() if f"left out: 1, the first is {why}" in remark
    ]
    assert sum("left out: 1" in remark for remark in faces.remarks()) == 1


@pytest.mark.parametrize(
    "labels",
    [
        BY_KEY.replace(" ", ";"),
        "sep=;\n" + BY_KEY.replace(" ", ";"),
        "# predicted by a network\n\n" + BY_KEY.replace(" ", ","),
        "Key;Gender;;\n" + BY_KEY.replace(" ", ";").replace("\n", ";;\n") + ";;;\n",
        BY_KEY.replace("\n", "\r"),
        BY_KEY.replace(" ", ",").replace("\n", ",\r\n"),
        BY_KEY + "3 NA\n4 ?\n",
    ],
)
def test_lists_that_programs_write_oddly(rec: Path, labels: str) -> None:
    assert genders(list(source(rec, labels).records())) == {key: key % 2 for key in range(1, 11)}
    again = source(rec, labels)
    (rec.parent / "labels.txt").write_bytes(labels.encode("utf-16"))
    assert genders(list(again.records())) == {key: key % 2 for key in range(1, 11)}


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ('key,gender\n1,0\n2,"1\n3,0\n4,0\n', {"by": None}, "line 3 of .* quote"),
        ('key,gender\n1,0\n2,"1\n3,"0\n4,0\n', {"by": None}, "line 3 of .* quote"),
        ('key,gender\n1,0\n2,"1\n3,0"\n4,0\n', {"by": None}, "line 3 of .* quote"),
        (BY_KEY, {"male": "F", "female": "M"}, "'F' is a word for female: it cannot be given as --male"),
        (BY_KEY, {"male": "woman", "female": "1"}, "'woman' is a word for female"),
        (
            "key,Male\n" + BY_KEY.replace(" ", ","),
            {"by": None, "male": "0", "female": "1"},
            "'male' cannot mean female",
        ),
        ("path,gender,age\nimgs/0/1.jpg,0,1e30\n", {"by": None}, "line 2: its age '1e30' is neither"),
        ("path,gender,age\nimgs/0/1.jpg,0,inf\n", {"by": None}, "line 2: its age 'inf' is neither"),
        (
            "".join(f"{'female' if k % 2 else 'male'}/{k % 10 + 1}.jpg {k % 2}\n" for k in range(40)),
            {"by": "path"},
            "its genders contradict the paths in 40 of the first 40 images, as in 'male/1.jpg': are .* swapped?",
        ),
    ],
)
def test_quotes_ages_and_swapped_genders_in_lists(rec: Path, labels: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        list(source(rec, labels, **options).records())


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
        assert "100 images (20.00 %) were outvoted and changed gender" in faces.remarks()
