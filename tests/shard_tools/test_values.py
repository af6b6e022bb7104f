from __future__ import annotations

from pathlib import Path

import pytest

from shard_tools.sources.columns import Columns, Labeller
from shard_tools.sources.morph import Morph
from shard_tools.sources.utkface import Utkface
from shard_tools.sources.values import MeaninglessError, age_of, canonical
from shard_tools.sources.webdataset import field_of, parsed, text
from tests.shard_tools.tables import draw


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("25", 25), (" 025 ", 25), ("25.0", 25), ("+25.5", 25.5), (".5", 0.5), ("0", 0), ("130", 130),
        ("24,5", 24.5), ("60,25", 60.25),
        ("20-29", 24.5), ("0 - 2", 1), ("25\N{EN DASH}32", 28.5), ("25 to 32", 28.5), ("2.5-3.5", 3), ("35-35", 35),
        ("(25, 32)", 28.5), ("[25;32)", 28.5), ("[20,30[", 25), ("(25-32)", 28.5),
        ("", -1), ("NA", -1), ("N/A", -1), ("nan", -1), ("None", -1), ("NULL", -1), ("?", -1), ("-", -1), ("-1", -1),
        ("-1.0", -1), ("<NA>", -1), ("#N/A", -1), ("Unknown", -1),
    ],
)  # fmt: skip
def test_ages_are_read_as_they_are_meant(text: str, years: float) -> None:
    assert age_of(text) == years


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("60+", "no other end: state which number it stands for, as in --ages '60+' 75"),
        ("more than 70", "as in --ages 'more than 70' 75"),
        (">=60", "no other end"),
        ("60 and over", "no other end"),
        ("under 3", "no other end"),
        ("131", "is not 0 to 130 years"),
        ("-2", "is not 0 to 130 years"),
        ("2024", "is not 0 to 130 years"),
        ("9" * 400, "neither 0 to 130 years nor a bin"),
        ("1e30", "neither"),
        ("1e1", "neither"),
        ("inf", "neither"),
        ("Infinity", "neither"),
        ("1_0", "neither"),
        ("32-25", "no bin from a lower to a higher age"),
        ("(60, 200)", "no bin from a lower to a higher age"),
        ("(60, inf)", "neither"),
        ("1,000", "may have a decimal comma or one of thousands"),
        ("24,5,6", "neither"),
        ("9-Mar", "Excel may have made a date"),
        ("Oct-19", "Excel may have made a date"),
        ("True", "neither"),
    ],
)
def test_what_is_no_age_has_a_reason_and_no_number(text: str, reason: str) -> None:
    with pytest.raises(MeaninglessError, match="its age") as raised:
        age_of(text)
    assert reason in str(raised.value)


def test_numbers_are_compared_by_value() -> None:
    assert [canonical(text) for text in (" Male ", "01", "+1", "1.0", "-1.", "0.50")] == [
        "male", "1", "1", "1", "-1", "0.5",
    ]  # fmt: skip


def test_names_with_ages_that_nobody_has_are_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "utk", ["24_1_0_20170116.jpg", "350_1_0_20170116.jpg"])
    draw(tmp_path / "morph", ["000001_0M24.JPG", "000001_1M240.JPG"])
    utk = Utkface(images=tmp_path / "utk", out=tmp_path / "out")
    assert [r.rejected for r in utk.records()] == ["", "its age 350 is not 0 to 130 years"]
    morph = Morph(images=tmp_path / "morph", out=tmp_path / "out")
    assert [r.rejected for r in morph.records()] == ["", "its age '240' is not 0 to 130 years"]
    (tmp_path / "morph.csv").write_text("photo,age\n000001_1M240.JPG,24\n")
    assert [r.age for r in Morph(images=tmp_path / "morph", csv=tmp_path / "morph.csv", out=tmp_path).records()] == [
        24,
        24,
    ]
    (tmp_path / "morph.csv").write_text("photo,race\n000001_1M240.JPG,W\n")
    records = list(Morph(images=tmp_path / "morph", csv=tmp_path / "morph.csv", out=tmp_path).records())
    assert records[1].rejected == "its age '240' is not 0 to 130 years"


@pytest.mark.parametrize(
    ("json", "age", "reason"),
    [
        (b"24.5", 24.5, ""), (b"NaN", -1, ""), (b"null", -1, ""), (b"-1", -1, ""), (b'"24,5"', 24.5, ""),
        (b"Infinity", -1, "its age 'inf'"), (b"1e30", -1, "its age '1000000000000000019884624838656'"),
        (b"true", -1, "its age 'True'"), (b"-7", -1, "its age '-7'"),
    ],
)  # fmt: skip
def test_ages_in_json_are_read_alike(json: bytes, age: float, reason: str) -> None:
    document = parsed("json", b'\xef\xbb\xbf{"age": ' + json + b"}")
    labeller = Labeller(Columns(image="key", age="json:age"), "webdataset", ("key", "json:age"))
    _, label = labeller(("1", field_of(document, "age", "json:age") or ""))
    assert label.age == age
    assert label.rejected[: len(reason)] == reason
    assert bool(label.rejected) == bool(reason)


def test_a_text_member_may_begin_with_a_byte_order_mark() -> None:
    assert [text("cls", raw) for raw in (b"\xef\xbb\xbf1\n", "1\r\n".encode("utf-16"), b"1")] == ["1", "1", "1"]
