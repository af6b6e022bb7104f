from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.morph import Morph
from tests.conftest import REAL_DATA

NAMES = (
    "Album2/000007_00F102.JPG",
    "Album2/065649_01M46.JPG",
    "Album2/065649_02M47.JPG",
    "065649_03F48.JPG",
    "100001_0M16.JPG",
    "100001_1M17.JPG",
)
CSV = """\
ID_num,picture_num,DOB,doa,race,gender,facial_hair,age,age_diff,glasses,photo
7,0,01/06/1901,08/19/2003,W,F,,102,0,0,Album2/000007_00F102.jpg
065649,1,12/31/1959,08/19/2006,B,M,,46,0,0,065649_01M46.JPG
065649,2,12/31/1959,12/30/2006,B,M,,,0,0,065649_02M47.JPG
065649,3,12/31/1960,12/31/2008,H,M,,48,0,0,065649_03F48.JPG
100001,0,1990-02-01,2006-02-02,A,M,,19,0,0,100001_0M16.JPG
999999,0,1990-02-01,2006-02-02,A,M,,16,0,0,999999_0M16.JPG
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "images"


def morph(images: Path, csv: str = "", fixes: str = "") -> Morph:
    """The source with tables of these contents."""
    tables = [images.parent / "csv.csv", images.parent / "fixes.csv"]
    for path, text in zip(tables, (csv, fixes), strict=True):
        path.write_text(text)
    return Morph(
        images=images,
        out=images.parent / "out",
        val=0,
        test=0,
        csv=tables[0] if csv else None,
        fixes=tables[1] if fixes else None,
    )


def packed(source: Morph) -> dict[str, tuple[Any, ...]]:
    """Gender, age, subject and group of what was packed, by photo."""
    pack(source)
    index = read_manifest(source.out).index("train")
    return {
        row["key"].decode().removeprefix("Album2-"): (
            row["gender"].item(),
            row["age"].item(),
            row["subject"].decode(),
            row["group"].decode(),
        )
        for row in index
    }


def remarks(source: Morph) -> list[str]:
    """What the source remarks; a pack writes it into its summary, before what it warns of."""
    list(source.records())
    found = source.remarks()
    summary = source.out / "summary.txt"
    lines = summary.read_text().splitlines() if summary.exists() else found
    assert [line for line in lines if not line.startswith("WARNING")][-len(found) :] == found
    return found


def listed(source: Morph) -> dict[str, tuple[Any, ...]]:
    """Gender, age, group and the reason of rejection, by photo."""
    return {r.name.rsplit("/", 1)[-1][:9]: (r.gender, r.age, r.group, r.rejected) for r in source.records()}


def test_names_alone_give_gender_and_age(images: Path) -> None:
    source = morph(images)
    assert packed(source) == {
        "000007_00F102": (0, 102, "000007", ""),
        "065649_01M46": (1, 46, "065649", ""),
        "065649_02M47": (1, 47, "065649", ""),
        "065649_03F48": (0, 48, "065649", ""),
        "100001_0M16": (1, 16, "100001", ""),
        "100001_1M17": (1, 17, "100001", ""),
    }
    assert remarks(source) == [
        "subjects whose pictures disagree: 1 in gender",
        "subject 065649: gender F in 1 picture (065649_03F48.JPG), "
        "M in 2 pictures (065649_01M46.JPG, 065649_02M47.JPG)",
    ]


def test_the_csv_wins_over_the_names(images: Path) -> None:
    source = morph(images, CSV)
    assert packed(source) == {
        "000007_00F102": (0, 102, "000007", "White"),
        "065649_01M46": (1, 46, "065649", "Black"),
        "065649_02M47": (1, 46, "065649", "Black"),  # by the dates: born on 12/31, taken on 12/30
        "065649_03F48": (1, 48, "065649", "Hispanic"),
        "100001_0M16": (1, 19, "100001", "Asian"),
        "100001_1M17": (1, 17, "100001", ""),
    }
    assert remarks(source) == [
        "the CSV's gender is taken, not the name's, for 1 picture: 065649_03F48.JPG (F in the name, M in the CSV)",
        "the CSV's age is taken, not the name's, for 2 pictures: "
        "100001_0M16.JPG (16 in the name, 19 in the CSV), 065649_02M47.JPG (47 in the name, 46 in the CSV)",
        "1 picture not in csv.csv, labelled by name: 100001_1M17.JPG is the first",
        "1 photo of csv.csv not below --images",
        "subjects whose pictures disagree: 0 in gender, 1 in race, 1 in birth date",
        "subject 065649: race Hispanic in 1 picture (065649_03F48.JPG), "
        "Black in 2 pictures (065649_01M46.JPG, 065649_02M47.JPG); "
        "birth date 1960-12-31 in 1 picture (065649_03F48.JPG), "
        "1959-12-31 in 2 pictures (065649_01M46.JPG, 065649_02M47.JPG)",
    ]
    convention = read_manifest(source.out).convention
    assert "B Black, W White, A Asian, H Hispanic, O Other" in convention


def test_corrections_are_applied_and_counted(images: Path) -> None:
    fixes = (
        "subject,photo,gender,race,dob,age,note\n"
        "65649,,,B,1959-12-31,,the passport says so\n"
        ",065649_02M47.JPG,,White,,,\n"
        ",Album2/000007_00F102.JPG,M,,,101,\n"
    )
    source = morph(images, CSV, fixes)
    found = packed(source)
    assert found["000007_00F102"] == (1, 101, "000007", "White")
    assert found["065649_01M46"] == (1, 46, "065649", "Black")
    assert found["065649_02M47"] == (1, 46, "065649", "White")
    assert found["065649_03F48"] == (1, 49, "065649", "Black")  # a year older than by the CSV's date of birth
    assert remarks(source)[-3:] == [
        "3 corrections of fixes.csv applied to 4 pictures: gender of 1, race of 3, dob of 3, age of 1",
        "subjects whose pictures disagree: 0 in gender, 1 in race, 0 in birth date",
        "subject 065649: race White in 1 picture (065649_02M47.JPG), "
        "Black in 2 pictures (065649_03F48.JPG, 065649_01M46.JPG)",
    ]


def test_corrections_of_names_need_no_csv(images: Path) -> None:
    source = morph(images, fixes="photo,gender\n065649_03F48.JPG,male\n")
    assert packed(source)["065649_03F48"] == (1, 48, "065649", "")
    assert remarks(source) == [
        "1 correction of fixes.csv applied to 1 picture: gender of 1",
        "subjects whose pictures disagree: 0 in gender",
    ]


def test_what_the_csv_spoils_is_left_out_until_it_is_corrected(images: Path) -> None:
    header, *rows = CSV.splitlines()
    rows[0] = rows[0].replace(",W,F,", ",Q,F,")
    rows[1] = rows[1].replace(",B,M,", ",B,X,")
    rows[2] = rows[2].replace("12/30/2006", "12/30/1950")
    rows[3] = rows[3].replace(",48,0,0", ",480,0,0")
    rows[4] = rows[4].replace("1990-02-01", "31/12/90")  # no label, as the age is given
    rows.append(rows[4].replace(",19,", ",18,"))
    csv = "\n".join([header, *rows]) + "\n"
    source = morph(images, csv)
    assert {photo: rejected for photo, (_, _, _, rejected) in listed(source).items() if rejected} == {
        "000007_00": "line 2 of csv.csv: its race 'Q' is not one of B, W, A, H, O",
        "065649_01": "line 3 of csv.csv: its gender 'X' is not F or M",
        "065649_02": "it was taken on 1950-12-30, and its subject was born on 1959-12-31",
        "065649_03": "line 5 of csv.csv: its age '480' is not 0 to 130 years",
        "100001_0M": "csv.csv lists it twice with different values",
    }
    assert remarks(source)[0] == "dates of csv.csv that cannot be read: 2, the first dob '31/12/90' in line 6"

    fixes = "subject,race,gender,age\n7,W,,\n65649,,M,47\n"
    rest = listed(morph(images, csv, fixes))
    assert {photo for photo, label in rest.items() if label[3]} == {"100001_0M"}
    assert rest["065649_02"] == (1, 47, "Black", "")


def test_names_of_another_kind_are_left_out_unless_the_csv_has_them(images: Path) -> None:
    (images / "Album2" / "000007_00F102.JPG").rename(images / "someone.JPG")
    without = listed(morph(images))["someone.J"]
    assert without == (-1, -1, "", "its name is not subject_picture{M|F}age")
    with_csv = listed(morph(images, CSV))["someone.J"]
    assert with_csv == (-1, -1, "", "neither its name nor the CSV has its subject")
    named = listed(morph(images, CSV.replace("Album2/000007_00F102.jpg", "someone.png")))["someone.J"]
    assert named == (0, 102, "White", "")


@pytest.mark.parametrize(
    ("csv", "fixes", "says"),
    [
        ("id_num,picture,gender\n7,x.jpg,F\n", "", "'photo': known: id_num, picture, gender"),
        ("", "subject,gendr\n7,M\n", "'gendr': did you mean gender?"),
        ("", "subject,gender\n8,M\n", "line 2 of {root}/fixes.csv: no picture is of subject '8'"),
        ("", "photo,gender\n7_0F20.JPG,M\n", "line 2 of {root}/fixes.csv: no picture is of photo '7_0F20.JPG'"),
        ("", "subject,gender\n7,M\n65649,X\n", "line 3 of {root}/fixes.csv: its gender 'X' is not F or M"),
        ("", "subject,dob\n7,02/30/1950\n", "line 2 of {root}/fixes.csv: its dob '02/30/1950' is no date"),
        ("", "subject,race\n7,Z\n", "line 2 of {root}/fixes.csv: its race 'Z' is not one of B, W, A, H, O"),
        ("", "subject,gender\n7,\n", "line 2 of {root}/fixes.csv sets nothing"),
        ("", "subject,gender\n7,F\n000007,M\n", "line 3 of {root}/fixes.csv sets the gender of subject 000007 once"),
        ("", "subject,gender\n,M\n", "line 2 of {root}/fixes.csv: no subject and no photo"),
        ("", "subject,gender\n7,M,20\n65649\n", "line 2 of fixes.csv has 3 fields, not 2"),
    ],
)
def test_tables_that_make_no_sense_are_one_line(images: Path, csv: str, fixes: str, says: str) -> None:
    source = morph(images, csv, fixes)
    with pytest.raises(UserError) as raised:
        pack(source)
    assert says.format(root=images.parent) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not source.out.exists()


def test_real_names_of_morph(tmp_path: Path) -> None:
    path = REAL_DATA / "lists" / "morph3_names_sample.txt"
    if not path.is_file():
        pytest.skip(f"no list {path}: set HPCGENDER_TEST_DATA to a directory that has lists")
    expected = {}
    for line in path.read_text().splitlines():
        name, _, gender, age = line.split()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        expected[name] = (int(gender), float(age))
    records = list(Morph(images=tmp_path, out=tmp_path / "out").records())
    assert {record.name: (record.gender, record.age) for record in records} == expected
