from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet, table

from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.keyed_table import open_keyed
from shard_tools.sources.table import Table
from tests.conftest import REAL_DATA


def draw(images: Path, names: Sequence[str]) -> None:
    """A picture for each name that looks like no other's."""
    for number, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC).save(images / name, format="JPEG")


def command(text: str, **paths: Path) -> Table:
    """The source that a command line makes; {name} stands for a path."""
    source = parse_options(Table, "pack table", [word.format(**paths) for word in text.split()])
    assert isinstance(source, Table)
    return source


def labels(out: Path) -> dict[str, dict[str, Any]]:
    """What was packed, by key."""
    manifest = read_manifest(out)
    fields = ("gender", "age", "subject", "group")
    return {
        row["key"].decode(): {
            **{field: row[field].decode() if field in fields[2:] else row[field].item() for field in fields},
            "split": split,
        }
        for split in manifest.splits
        for row in manifest.index(split)
    }


def reasons(source: Table) -> dict[str, str]:
    return {record.name: record.rejected for record in source.records() if record.rejected}


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolons", "spaces", "parquet"])
def test_every_kind_of_table_gives_the_same_labels(tmp_path: Path, kind: str) -> None:
    rows = [("a/1.jpg", 0, 20, "x"), ("a/2.jpg", 1, 35, "x"), ("b/3.jpg", 1, 102, "y"), ("b/4.jpg", -1, -1, "z")]
    header = ("file", "sex", "years", "who")
    draw(tmp_path / "images", [row[0] for row in rows])
    path = tmp_path / "labels"
    if kind == "parquet":
        parquet.write_table(table(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))), path)
    else:
        separator = {"csv": ",", "tsv": "\t", "semicolons": ";", "spaces": "  "}[kind]
        path.write_text("\n".join(separator.join(map(str, row)) for row in (header, *rows)) + "\n")
    pack(
        command(
            "--table {path} --images {images} --out {out} --val 0 --test 0"
            " --image file --gender sex --male 1 --female 0 --unknown -1 --age years --subject who",
            path=path,
            images=tmp_path / "images",
            out=tmp_path / "out",
        )
    )
    assert labels(tmp_path / "out") == {
        "a-1": {"gender": 0, "age": 20, "subject": "x", "group": "", "split": "train"},
        "a-2": {"gender": 1, "age": 35, "subject": "x", "group": "", "split": "train"},
        "b-3": {"gender": 1, "age": 102, "subject": "y", "group": "", "split": "train"},
        "b-4": {"gender": -1, "age": -1, "subject": "z", "group": "", "split": "train"},
    }
    convention = read_manifest(tmp_path / "out").convention
    assert "gender from sex (0 is female, 1 is male, turned to 0 female 1 male)" in convention


def test_fairface_labels_and_splits(tmp_path: Path) -> None:
    names = ["train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg"]
    draw(tmp_path / "images", names)
    (tmp_path / "train.csv").write_text(
        "file,age,gender,race,service_test\n"
        "train/1.jpg,50-59,Male,East Asian,True\n"
        "train/2.jpg,0-2,Female,Middle Eastern,False\n"
        "train/3.jpg,more than 70,Female,Latino_Hispanic,False\n"
    )
    (tmp_path / "val.csv").write_text("file,age,gender,race,service_test\nval/1.jpg,3-9,Male,East Asian,False\n")
    pack(
        command(
            "--table {root}/train.csv --table {root}/val.csv --images {root}/images --out {root}/out"
            " --mapping fairface",
            root=tmp_path,
        )
    )
    assert labels(tmp_path / "out") == {
        "train-1": {"gender": 1, "age": 54.5, "subject": "", "group": "East Asian", "split": "train"},
        "train-2": {"gender": 0, "age": 1, "subject": "", "group": "Middle Eastern", "split": "train"},
        "train-3": {"gender": 0, "age": 75, "subject": "", "group": "Latino_Hispanic", "split": "train"},
        "val-1": {"gender": 1, "age": 6, "subject": "", "group": "East Asian", "split": "val"},
    }


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    names = [f"{number:06d}.jpg" for number in range(1, 5)]
    draw(tmp_path / "images", names)
    genders = [-1, 1, 1, -1]
    (tmp_path / "list_attr_celeba.txt").write_text(
        "4\n5_o_Clock_Shadow Male Young \n"
        + "".join(f"{name} -1 {g:2d}  1\n" for name, g in zip(names, genders, strict=True))
    )
    (tmp_path / "identity_CelebA.txt").write_text("".join(f"{name} {n // 2}\n" for n, name in enumerate(names)))
    (tmp_path / "list_eval_partition.txt").write_text(
        "".join(f"{name} {max(n - 1, 0)}\n" for n, name in enumerate(names))
    )
    return tmp_path


def test_celebas_three_lists_are_one_table(celeba: Path) -> None:
    source = command(
        "--table {root}/list_attr_celeba.txt --table {root}/identity_CelebA.txt"
        " --table {root}/list_eval_partition.txt --images {root}/images --out {root}/out --mapping celeba",
        root=celeba,
    )
    records = list(source.records())
    assert [(r.name, r.gender, r.subject, r.split) for r in records] == [
        ("000001.jpg", 0, "0", "train"),
        ("000002.jpg", 1, "0", "train"),
        ("000003.jpg", 1, "1", "val"),
        ("000004.jpg", 0, "1", "test"),
    ]
    assert source.remarks() == []
    pack(source)
    assert sum(split.samples for split in read_manifest(celeba / "out").splits.values()) == 4


def test_celeba_as_kaggle_has_it(celeba: Path) -> None:
    (celeba / "list_attr_celeba.csv").write_text(
        "image_id,5_o_Clock_Shadow,Male,Young\n"
        + "".join(f"{n:06d}.jpg,-1,{g},1\n" for n, g in enumerate((-1, 1, 1, -1), 1))
    )
    (celeba / "list_eval_partition.csv").write_text(
        "image_id,partition\n" + "".join(f"{n:06d}.jpg,{p}\n" for n, p in enumerate((0, 0, 1, 2), 1))
    )
    (celeba / "img_align_celeba").mkdir()
    (celeba / "images").rename(celeba / "img_align_celeba" / "img_align_celeba")
    line = (
        "--table {root}/list_attr_celeba.csv --table {root}/list_eval_partition.csv --mapping celeba"
        " --images {root}/img_align_celeba --out {root}/out"
    )
    with pytest.raises(UserError, match=r"looked for .*/000001\.jpg: did you mean --images .*/img_align_celeba/img_"):
        list(command(line, root=celeba).records())
    records = list(command(line.replace("celeba --out", "celeba/img_align_celeba --out"), root=celeba).records())
    assert [(r.gender, r.split) for r in records] == [(0, "train"), (1, "train"), (1, "val"), (0, "test")]


def test_fairfaces_training_list_alone_leads_to_a_training(tmp_path: Path) -> None:
    names = [f"train/{number}.jpg" for number in range(1, 41)]
    draw(tmp_path / "fairface", names)
    (tmp_path / "fairface_label_train.csv").write_text(
        "file,age,gender,race,service_test\n"
        + "".join(
            f"{name},{('20-29', 'more than 70')[n % 3 > 1]},{('Male', 'Female')[n % 2]},White,True\n"
            for n, name in enumerate(names)
        )
    )
    line = "--table {root}/fairface_label_train.csv --images {root}/fairface --out {root}/out"
    pack(command(line + " --mapping fairface", root=tmp_path))
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest.splits) == {"train", "val"}
    assert sum(split.samples for split in manifest.splits.values()) == 40
    without = reasons(command(line + " --gender gender --image file --age age", root=tmp_path))
    assert set(without.values()) == {
        "its age 'more than 70' has no other end: state which number it stands for, as in --ages 'more than 70' 75"
    }


def test_celebas_attributes_alone_say_what_is_unknown(celeba: Path) -> None:
    source = command(
        "--table {root}/list_attr_celeba.txt --images {root}/images --out {root}/out --mapping celeba", root=celeba
    )
    assert [(r.gender, r.subject, r.split) for r in source.records()] == [(g, "", "") for g in (0, 1, 1, 0)]
    assert source.remarks() == [
        "no table has a column identity: the subject is unknown",
        "no table has a column partition: the split is unknown",
    ]


def test_an_image_that_no_table_with_genders_has_is_left_out(celeba: Path) -> None:
    with (celeba / "identity_CelebA.txt").open("a") as file:
        file.write("000099.jpg 7\n")
    source = command(
        "--table {root}/list_attr_celeba.txt --table {root}/identity_CelebA.txt --images {root}/images"
        " --out {root}/out --mapping celeba",
        root=celeba,
    )
    assert reasons(source) == {"000099.jpg": "no table with genders has it"}


def test_afads_folders_are_labels(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["15/111/a.jpg", "15/112/b.jpg", "72/112/c.jpg", "72/d.jpg"])
    pack(
        command(
            "--images {root}/images --out {root}/out --mapping afad --val 0 --test 0",
            root=tmp_path,
        )
    )
    found = labels(tmp_path / "out")
    assert {key: (label["gender"], label["age"]) for key, label in found.items()} == {
        "15-111-a": (1, 15),
        "15-112-b": (0, 15),
        "72-112-c": (0, 72),
    }
    assert read_manifest(tmp_path / "out").quarantined == 1


def test_lfws_lists_of_names(tmp_path: Path) -> None:
    names = ["Abel_Aguilar_0001.jpg", "Abel_Aguilar_0002.jpg", "Ali_Abbas_0001.jpg", "AJ_Cook_0001.jpg"]
    draw(tmp_path / "images", [f"{name[:-9]}/{name}" for name in names])
    (tmp_path / "male_names.txt").write_text("\n".join(names[:3]) + "\n\n")
    (tmp_path / "female_names.txt").write_text(f"{names[3]}\r\n{names[2]}\r\n")
    source = command(
        "--table {root}/male_names.txt --table {root}/female_names.txt --images {root}/images --out {root}/out"
        " --mapping lfw --val 0 --test 0",
        root=tmp_path,
    )
    pack(source)
    assert {key: (label["gender"], label["subject"]) for key, label in labels(tmp_path / "out").items()} == {
        "Abel_Aguilar-Abel_Aguilar_0001": (1, "Abel_Aguilar"),
        "Abel_Aguilar-Abel_Aguilar_0002": (1, "Abel_Aguilar"),
        "AJ_Cook-AJ_Cook_0001": (0, "AJ_Cook"),
    }
    assert reasons(source) == {
        "Ali_Abbas/Ali_Abbas_0001.jpg": "female_names.txt and male_names.txt disagree about its gender"
    }


def test_lists_of_path_race_gender_and_age(tmp_path: Path) -> None:
    names = ["MORPH3/Album2/01/049615_01M49.JPG", "MORPH3/Album2/01/059828_01F50.JPG", "MORPH3/Album2/01/1_02M20.JPG"]
    draw(tmp_path / "images", names)
    rows = zip(names, ("1 1 49", "0 0 50", "1 -1 20"), strict=True)
    (tmp_path / "list.txt").write_text("".join(f"{name} {row}\n" for name, row in rows))
    pack(
        command(
            "--table {root}/list.txt --images {root}/images --out {root}/out --val 0 --test 0"
            " --columns image race gender age --gender gender --male 1 --female 0 --unknown -1"
            " --age age --group race --groups 0 White 1 Black",
            root=tmp_path,
        )
    )
    found = labels(tmp_path / "out")
    assert [(label["gender"], label["age"], label["group"]) for _, label in sorted(found.items())] == [
        (1, 49, "Black"),
        (0, 50, "White"),
        (-1, 20, "Black"),
    ]


def test_a_toml_file_says_the_same_and_options_override_it(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["p/1.png", "q/2.png"])
    (tmp_path / "labels.csv").write_text("who,number,sex,fold,stage\np,1,1,0,adult\nq,2,2,1,child\n")
    (tmp_path / "ours.toml").write_text(
        'image = "{who}/{number}.png"\ngender = "sex"\nmale = 2\nfemale = [1]\nsubject = "{who}-{fold}"\n'
        'age = "stage"\nages = {adult = 40, child = 8.5}\nsplit = "fold"\nsplits = {0 = "train", 1 = "test"}\n'
    )
    line = "--table {root}/labels.csv --images {root}/images --out {root}/out --mapping {root}/ours.toml"
    records = [r[1:7] for r in command(line, root=tmp_path).records()]
    assert records == [("p/1.png", 0, 40, "p-0", "", "train"), ("q/2.png", 1, 8.5, "q-1", "", "test")]
    swapped = [r.gender for r in command(f"{line} --male 1 --female 2", root=tmp_path).records()]
    assert swapped == [1, 0]


def test_rows_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["ok.jpg", "man.jpg"])
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "images" / "ok.jpg").read_bytes())
    (tmp_path / "labels.csv").write_text(
        "image,gender,age,split\n"
        "ok.jpg,Female,30,train\n"
        f"{tmp_path}/images/man.jpg,man,,Validation\n"
        "../secret.jpg,male,30,train\n"
        f"{tmp_path}/secret.jpg,male,30,train\n"
        "odd.jpg,7,30,train\n"
        "old.jpg,male,old,train\n"
        "far.jpg,male,30,tomorrow\n"
        "short.jpg,male\n"
        ",male,30,train\n"
        "gone.jpg,male,30,train\n"
    )
    source = command(
        "--table {root}/labels.csv --images {root}/images --out {root}/out --gender gender --age age --split split",
        root=tmp_path,
    )
    pack(source)
    assert {key: label["gender"] for key, label in labels(tmp_path / "out").items()} == {"ok": 0, "man": 1}
    assert read_manifest(tmp_path / "out").quarantined == 8
    assert reasons(source) == {
        "../secret.jpg": "its path leads outside --images",
        f"{tmp_path}/secret.jpg": "its path leads outside --images",
        "odd.jpg": "its gender '7' is not stated to be male, female or unknown, as by --male 1",
        "old.jpg": "its age 'old' is neither 0 to 130 years nor a bin such as 20-29",
        "far.jpg": "its split 'tomorrow' is not one that --splits has a meaning for",
        "short.jpg": "line 9 of labels.csv has 2 fields, not 4",
        "line 10 of labels.csv": "it has no image",
    }


def test_a_subject_that_a_table_has_as_a_float_is_the_same_subject(tmp_path: Path) -> None:
    spellings = {
        "7": "7", "7.0": "7", "7.": "7", "007": "007", "90071992547409931.00": "90071992547409931", "7.5": "7.5",
        "v1.0": "v1.0",
    }  # fmt: skip
    names = [f"{number}.jpg" for number in range(len(spellings))]
    draw(tmp_path, names)
    rows = [f"{name},m,{subject}" for name, subject in zip(names, spellings, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["image,gender,subject", *rows]) + "\n")
    options = "--table {root}/t.csv --images {root} --out {root}/out --gender gender --subject subject"
    found = [record.subject for record in command(options, root=tmp_path).records()]
    assert found == list(spellings.values())


def test_a_comment_read_as_column_names_is_named_where_a_column_is_not_found(tmp_path: Path) -> None:
    draw(tmp_path, ["1.jpg"])
    (tmp_path / "t.csv").write_text("\n# from a, b, c\nimage,gender,age\n1.jpg,m,30\n")
    says = "; line 2 of t.csv was read as the column names: remove it if it is a comment"
    text = "--table {root}/t.csv --images {root} --out {root}/out "
    for options, wrong in (("--gender gender", "column of t.csv 'image'"), ("--image b", "which column has the gender"),
                           ("--image b --gender gender", "column of t.csv 'gender'")):  # fmt: skip
        with pytest.raises(UserError, match=f"{wrong}.*{says}$"):
            list(command(text + options, root=tmp_path).records())
    with pytest.raises(UserError, match=f"column of .*t.csv 'image'.*{says}$"):
        open_keyed(tmp_path / "t.csv", "image", ["gender"])
    (tmp_path / "t.csv").write_text("image,gender,age\n1.jpg,m,30\n")
    with pytest.raises(UserError, match=r"column of t.csv 'sex': known: [a-z, ]*$"):
        list(command(text + "--gender sex", root=tmp_path).records())


def test_rows_of_the_same_image_are_counted(tmp_path: Path) -> None:
    draw(tmp_path / "images", ["1.jpg", "2.jpg"])
    (tmp_path / "labels.csv").write_text("image,gender\n1.jpg,m\n2.jpg,f\n1.jpg,m\n")
    source = command("--table {root}/labels.csv --images {root}/images --out {root} --gender gender", root=tmp_path)
    assert len(list(source.records())) == 3
    assert source.remarks() == ["rows of labels.csv whose image an earlier row has already: 1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--gender gendre", "unknown column of labels.csv 'gendre': did you mean gender?"),
        ("--gender gender --subject who", "unknown column of labels.csv 'who': known: image, gender, sex, table"),
        ("--gender gender --image file", "unknown column of labels.csv 'file'"),
        ("--gender gender --path {{directory}}/{{image}}", "unknown column of labels.csv 'directory'"),
        ("", "which column has the gender? Give it as --gender; labels.csv has image, gender, sex"),
        ("--gender sex", "no row of labels.csv gives a gender, its column sex has '1' (2 times), '0' (1 times)"),
        ("--gender sex --male 1 --female 2", "no row of labels.csv is female, which 2 is stated to mean"),
        ("--gender sex --male 1 --female 1.0", "'1' is stated to be more than one of male, female and unknown"),
        ("--gender gender --pattern (", "'(' is no regular expression"),
        ("--gender gender --splits 0 training", "it must be train, val or test"),
        ("--gender gender --mapping celebra", "unknown mapping 'celebra': did you mean celeba?"),
        ("--gender gender --mapping {root}/odd.toml", "odd.toml, line 1: gendr is unknown: did you mean gender?"),
        ("--gender gender --mapping {root}/none.toml", "none.toml: No such file or directory"),
        ("--gender gender --columns image sex", "line 1 of"),
        ("--gender gender --table {root}/none.csv", "no table"),
        ("--gender gender --table {root}/empty.csv", "has no rows"),
        ("--gender gender --table {root}/latin.csv", "is not text in UTF-8"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, options: str, says: str) -> None:
    draw(tmp_path / "images", ["1.jpg", "2.jpg", "3.jpg"])
    (tmp_path / "labels.csv").write_text("image,gender,sex\n1.jpg,m,1\n2.jpg,f,0\n3.jpg,m,1\n")
    (tmp_path / "odd.toml").write_text('gendr = "gender"\n')
    (tmp_path / "empty.csv").write_text("image,gender\n")
    (tmp_path / "latin.csv").write_bytes("image,gender\nJosé.jpg,m\n".encode("latin-1"))
    line = f"--table {{root}}/labels.csv --images {{root}}/images --out {{root}}/out {options}"
    with pytest.raises(UserError) as raised:
        pack(command(line, root=tmp_path))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_real_lfw_labels(tmp_path: Path) -> None:
    lfw = REAL_DATA / "lfw_a"
    if not lfw.is_dir():
        pytest.skip(f"no LFW in {lfw}: set HPCGENDER_TEST_DATA to a directory that has lfw_a")
    with (lfw / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[1::40]])
    pack(
        command(
            "--table {table} --images {images} --out {out} --image file --gender gender --subject identity",
            table=tmp_path / "labels.csv",
            images=lfw / "images",
            out=tmp_path / "out",
        )
    )
    found = labels(tmp_path / "out")
    expected = {row[0].replace("/", "-").removesuffix(".jpg"): (row[1] == "male", row[2]) for row in rows[1::40]}
    assert {key: (label["gender"], label["subject"]) for key, label in found.items()} == expected
    assert read_manifest(tmp_path / "out").quarantined == 0


def test_real_lists_of_the_face_analysis_field(tmp_path: Path) -> None:
    path = REAL_DATA / "lists" / "morph3_names_sample.txt"
    if not path.is_file():
        pytest.skip(f"no list {path}: set HPCGENDER_TEST_DATA to a directory that has lists")
    source = command(
        "--table {path} --images {images} --out out --columns image race gender age --gender gender"
        " --male 1 --female 0 --age age --subject subject --pattern (?P<subject>[0-9]+)_[0-9]+(?P<letter>[MF])",
        path=path,
        images=tmp_path,
    )
    (tmp_path / path.read_text().split()[0]).parent.mkdir(parents=True)
    (tmp_path / path.read_text().split()[0]).touch()
    records = list(source.records())
    assert len(records) == 512
    assert not any(record.rejected for record in records)
    for record in records:
        name = record.name.rsplit("/", 1)[-1]
        assert name.startswith(f"{record.subject}_")
        assert f"{'FM'[record.gender]}{record.age:g}." in name
