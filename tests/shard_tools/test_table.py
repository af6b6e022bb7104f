from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet, table

from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.keyed_table import open_keyed
from tests.shard_tools.tables import command, draw, labels, reasons


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


def test_a_subject_of_several_columns_is_the_same_however_a_table_spells_its_numbers(tmp_path: Path) -> None:
    """One table has gaps, for which pandas writes its whole numbers as 7.0."""
    subjects = {
        "x,7": "x/7",
        "x,7.0": "x/7",
        "x,007": "x/007",
        "x.0,7.5": "x.0/7.5",
        "2.0,": "2/",
        ",": "",
        "nan,?": "",
    }
    draw(tmp_path, [f"{number}.jpg" for number in range(len(subjects))])
    rows = [f"{number}.jpg,m,{columns}" for number, columns in enumerate(subjects)]
    (tmp_path / "t.csv").write_text("\n".join(["image,gender,family,person", *rows]) + "\n")
    (tmp_path / "more.csv").write_text("image,gender,family,person\n0.jpg,m,x,7.\n")
    options = (
        "--images {root} --out {root}/out --gender gender --subject {{family}}/{{person}} --group {{person}}-{{family}}"
    )
    records = list(command(f"--table {{root}}/t.csv {options}", root=tmp_path).records())
    assert [record.subject for record in records] == list(subjects.values())
    assert [record.group for record in records][:2] == ["7-x", "7-x"]
    both = command(f"--table {{root}}/t.csv --table {{root}}/more.csv {options}", root=tmp_path)
    assert next(iter(both.records())).subject == "x/7"


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
        ("--gender sex", "no row of labels.csv gives a gender, its column sex has '1' (2 times), '0' (1 time)"),
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
