from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from shard_tools.base.errors import UserError
from shard_tools.sources.conventions import gender_of
from shard_tools.sources.morph import Morph
from shard_tools.sources.table import Table
from shard_tools.sources.webdataset import Webdataset
from tests.shard_tools.tables import command, draw


@pytest.mark.parametrize(
    ("text", "gender"),
    [
        ("Male", 1), (" f ", 0), ("Women", 0), ("1", -1), ("", -1), ("mail", -1),
        ("Training/male/1.jpg", 1), ("C:\\faces\\female\\1.jpg", 0), ("train/1.jpg", -1), ("female_001.png", 0),
        ("a-male.jpg", 1), ("tamale.jpg", -1), ("049615_01M49.JPG", 1), ("x/049615_1f49.jpg", 0),
        ("24_0_0_20170116220224657.jpg.chip.jpg", 1), ("24_1_0_20170116220224657.jpg", 0), ("24_1_0_3.jpg", -1),
        ("Paul_Man_0001.jpg", -1),
    ],
)  # fmt: skip
def test_genders_in_words_and_names(text: str, gender: int) -> None:
    assert gender_of(text) == gender


def table(root: Path, header: str, rows: list[str], options: str) -> Table:
    (root / "t.csv").write_text("\n".join([header, *rows]) + "\n")
    draw(root, ["1.jpg"])
    return command("--table {root}/t.csv --images {root} --out {root}/out " + options, root=root)


@pytest.mark.parametrize(
    ("header", "row", "options", "says"),
    [
        ("image,sex", "1.jpg,{word}", "--gender sex --male female --female male", "'female' is a word for female"),
        ("image,sex", "1.jpg,{letter}", "--gender sex --male F --female M", "'F' is a word for female"),
        ("image,Male", "1.jpg,{yes}", "--gender Male --male 0 --female 1", "1 in its column 'Male' cannot mean female"),
        ("image,Male", "1.jpg,{yes}", "--gender male --male 0", "0 in its column 'Male' cannot mean male"),
        ("image,is_female", "1.jpg,{yes}", "--gender is_female --male 1 --female 0", "cannot mean"),
        ("image,gender,sex", "1.jpg,{no},{word}", "--gender gender --male 0 --female 1", ""),
        (
            "image,gender,sex",
            "1.jpg,{yes},{word}",
            "--gender gender --male 0 --female 1",
            "its column 'sex'",
        ),
        ("image,gender", "{word}/1.jpg,{yes}", "--gender gender --male 0 --female 1", "contradict its column 'image'"),
        ("image,gender", "7_01{letter}20.jpg,{yes}", "--gender gender --male 0 --female 1", "contradict"),
        ("image,gender", "{word}/1.jpg,{yes}", "--gender gender --male 1 --female 0", ""),
        ("image,gender,sex", "1.jpg,{yes},{yes}", "--gender gender --male 0 --female 1", ""),
    ],
)
def test_swapped_genders_are_refused_where_the_table_says_otherwise(
    tmp_path: Path, header: str, row: str, options: str, says: str
) -> None:
    genders = [{"word": "Male", "letter": "M", "yes": 1, "no": 0}, {"word": "Female", "letter": "F", "yes": 0, "no": 1}]
    source = table(tmp_path, header, [row.format(**genders[n % 2]) for n in range(40)], options)
    if says:
        with pytest.raises(UserError) as raised:
            source._parts()
        assert says in str(raised.value)
    else:
        source._parts()


@pytest.mark.parametrize(("column", "says"), [("ML", ""), ("MF", "column 'size'"), (["men", "L"], "column 'size'")])
def test_one_letter_alone_in_another_column_is_no_gender(tmp_path: Path, column: Sequence[str], says: str) -> None:
    rows = [f"{n}.jpg,female,{column[n >= 30]}" for n in range(31)]
    source = table(tmp_path, "image,gender,size", rows, "--gender gender")
    if says:
        with pytest.raises(UserError, match=says):
            list(source.records())
    else:
        list(source.records())


def test_rows_that_contradict_now_and_then_are_no_swap(tmp_path: Path) -> None:
    rows = ["1.jpg,0,Male"] * 100 + ["1.jpg,0,Female"] * 30
    table(tmp_path, "image,gender,sex", rows, "--gender gender --male 0 --female 1")._parts()
    table(tmp_path, "image,gender,sex", ["1.jpg,0,Female"] * 19, "--gender gender --male 0 --female 1")._parts()


def test_two_tables_that_disagree_nearly_always_are_refused(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(24)]
    draw(tmp_path, names)
    for file, letters in (("a.csv", "mf"), ("b.csv", "fm")):
        rows = "".join(f"{name},{letters[n % 2]}\n" for n, name in enumerate(names))
        (tmp_path / file).write_text(f"image,gender\n{rows}")
    with (tmp_path / "a.csv").open("a") as file_a:
        file_a.write("x.jpg,m\n")
    source = command("--table {r}/a.csv --table {r}/b.csv --images {r} --out {r}/out --gender gender", r=tmp_path)
    says = r"a\.csv and b\.csv disagree about the gender of 24 images: are male and female swapped in one"
    with pytest.raises(UserError, match=says):
        list(source.records())


def test_morphs_csv_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    names = [f"{n:06d}_0{'FM'[n % 2]}24.JPG" for n in range(24)]
    draw(tmp_path / "images", names)
    rows = "".join(f"{name},{'MF'[n % 2]}\n" for n, name in enumerate(names))
    (tmp_path / "m.csv").write_text(f"photo,gender\n{rows}")
    with pytest.raises(UserError, match=r"contradicts the names of 24 pictures, as of 000000_0F24\.JPG .* swapped"):
        list(Morph(images=tmp_path / "images", csv=tmp_path / "m.csv", out=tmp_path / "out").records())


@pytest.mark.parametrize("label", ["json:male", "json:face.is_male", "table:Male"])
def test_a_field_named_male_is_checked_too(tmp_path: Path, label: str) -> None:
    source = Webdataset(urls=("a.tar",), label=label, male=("0",), female=("1",), out=tmp_path / "out")
    with pytest.raises(UserError, match="cannot mean female"):
        _ = source.columns


@pytest.mark.parametrize(
    ("mapping", "table_line", "says"),
    [
        ("fairface", "", "no --table: --mapping fairface expects fairface_label_train.csv and fairface_label_val.csv"),
        (
            "celeba",
            "identity_CelebA.txt",
            "(--mapping celeba expects list_attr_celeba.txt, and for subjects",
        ),
        ("lfw", "", "no --table: --mapping lfw expects male_names.txt and female_names.txt"),
        ("fairface", "identity_CelebA.txt", "(--mapping fairface expects fairface_label_train.csv"),
    ],
)
def test_a_mapping_names_the_tables_that_it_expects(tmp_path: Path, mapping: str, table_line: str, says: str) -> None:
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 1\n000002.jpg 2\n")
    line = f"--images {{root}} --out {{root}}/out --mapping {mapping}"
    with pytest.raises(UserError) as raised:
        list(command(line + (f" --table {{root}}/{table_line}" if table_line else ""), root=tmp_path).records())
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
