"""Lists of genders by record, identity or path, as people and programs write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shard_tools.base.errors import UserError
from shard_tools.sources import label_lists
from tests.shard_tools.labelled_records import BY_KEY, MANY, SUBJECTS, genders, source

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
        "lines of labels.txt about no image: 1, the first about 9",
        "1 image is not in labels.txt",
        "unknown gender: 1 of 10 images, packed with gender -1",
    ]


def test_unknown_genders_are_dropped_or_kept(rec: Path) -> None:
    labels = BY_KEY.replace("4 0", "4 -1").replace("5 1", "5 -1").replace("6 0\n", "")
    dropped = source(rec, labels, unknown_value=("-1",))
    assert sorted(genders(list(dropped.records()))) == [1, 2, 3, 7, 8, 9, 10]
    assert "unknown gender: 3 of 10 images, left out (--unknown keep packs them)" in dropped.remarks()
    assert "1 image is not in labels.txt" in dropped.remarks()
    kept = source(rec, labels, unknown_value=("-1",), unknown="keep")
    assert [key for key, gender in genders(list(kept.records())).items() if gender == -1] == [4, 5, 6]


def test_lines_that_contradict_each_other_are_reported_and_not_believed(rec: Path) -> None:
    faces = source(rec, BY_KEY + "2 0\n3 0\n3 1\n7 0\n")
    assert sorted(genders(list(faces.records()))) == [1, 2, 4, 5, 6, 8, 9, 10]
    remark = "labels.txt contradicts itself about the gender in 2 cases, taken as unknown; the first is record 3"
    assert remark in faces.remarks()


@pytest.mark.parametrize("chunk", [40, 1 << 18], ids=["in many pieces", "in one piece"])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_age_or_a_race_given_twice_differently_is_unknown_in_any_order(
    rec: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, backwards: bool
) -> None:
    monkeypatch.setattr(label_lists, "CHUNK", chunk)
    lines = [f"{key},{key % 2},{20 + key},a" for key in range(1, 11)]
    lines += ["2,0,60,a", "3,1,23,b", "4,0,24.0,a", "5,1,-1,", "6,0,26,a", "6,0,27,a", "6,0,26,a"]
    listed = "\n".join(["key,gender,age,race", *(lines[::-1] if backwards else lines)])
    faces = source(rec, listed, by=None)
    records = {int(record.name.rpartition("/")[2]): record for record in faces.records()}
    assert {key: r.gender for key, r in records.items()} == {key: key % 2 for key in range(1, 11)}
    assert {key: r.age for key, r in records.items()} == {k: -1 if k in (2, 6) else 20 + k for k in range(1, 11)}
    assert {key for key, r in records.items() if not r.group} == {3}
    assert [remark for remark in faces.remarks() if "contradicts" in remark] == [
        "labels.txt contradicts itself about the age in 2 cases, taken as unknown; the first is record 2",
        "labels.txt contradicts itself about the race in 1 case, taken as unknown; the first is record 3",
    ]


def test_a_vote_gives_each_identity_one_gender(rec: Path) -> None:
    labels = "1 1\n2 1\n3 0\n4 0\n5 1\n6 0\n7 0\n8 0\n9 -1\n10 1\n"
    options = {"unknown_value": ("-1",), "vote": "identity"}
    faces = source(rec, labels, **options)
    assert genders(list(faces.records())) == {1: 1, 2: 1, 3: 1, 6: 0, 7: 0, 8: 0, 9: 0, 10: 1}
    assert faces.remarks() == [
        "the images of 2 of 4 identities disagree on the gender: 2 of 9 images (22.22 %) against the majority",
        "1 image (11.11 %) outvoted and given the other gender",
        "1 identity tied: 2 images of unknown gender",
        "1 image without a known gender got that of the identity",
        "unknown gender: 2 of 10 images, left out (--unknown keep packs them)",
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
