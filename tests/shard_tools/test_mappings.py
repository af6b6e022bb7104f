"""The data sets whose tables have a ready mapping, in the form in which they are published."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from tests.conftest import REAL_DATA
from tests.shard_tools.tables import command, draw, labels, reasons


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
    manifest = read_manifest(celeba / "out")
    assert sum(split.samples for split in manifest.splits.values()) == 4
    assert manifest.numbering == "celeba"
    source.subject = "table"
    assert source.numbering == ""


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
