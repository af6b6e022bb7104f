"""`shard-tools inspect`: numbers, sheets, pages and samples of a data set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shard_tools.base.colours import ACCENTS
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.commands.inspect import InspectConfig
from shard_tools.inspect.inspection import inspect_shards
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.utkface import Utkface
from shard_tools.tar import BLOCK, blocks, header
from tests.shard_tools.listed import Listed, save

HOSTILE = "<script>alert('x')</script> & \x1b[31mred"
LONG = "a group with a name that is far too long for any card of any sheet whatever"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of six people, with every label that can be unknown, hostile or long."""
    images = tmp_path_factory.mktemp("listed")
    labels: list[dict[str, Any]] = [
        {"name": "a1.jpg", "gender": 0, "age": 0, "subject": "a", "group": "east"},
        {"name": "a2.jpg", "gender": 0, "age": 9.5, "subject": "a", "group": "east"},
        {"name": "a3.jpg", "gender": 1, "age": 10, "subject": "a", "group": "east"},
        {"name": "b1.jpg", "gender": 1, "age": 34, "subject": "b", "group": HOSTILE},
        {"name": "c1.jpg", "gender": 1, "age": 34, "subject": "c" * 90, "group": LONG},
        {"name": "c2.jpg", "gender": 1, "age": 200, "subject": "c" * 90, "group": LONG},
        {"name": "d1.jpg", "gender": -1, "age": 71, "subject": "d", "group": "west"},
        {"name": "e1.jpg", "gender": -1},
        {"name": "f1.jpg", "gender": 1, "group": "west"},
    ]
    for seed, label in enumerate(labels):
        save(images / label["name"], seed)
    (images / "labels.json").write_text(json.dumps(labels))
    return images


@pytest.fixture(scope="module")
def listed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those images packed as one split."""
    out = tmp_path_factory.mktemp("packed") / "listed"
    pack(Listed(images=images, out=out, val=0, test=0, workers=1))
    return out


@pytest.fixture(scope="module")
def utkface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in UTKFace's convention, half of each gender, packed into three splits."""
    images = tmp_path_factory.mktemp("utk") / "images"
    for seed in range(40):
        save(images / f"{20 + seed}_{seed % 2}_{seed % 5}_20170109{seed:09d}.jpg", seed)
    out = images.with_name("shards")
    pack(Utkface(images=images, out=out, val=0.25, test=0.25, workers=1))
    return out


def numbers(config: InspectConfig, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert inspect_shards(config) == 0
    return json.loads(capsys.readouterr().out)


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def marks(path: Path) -> list[int]:
    """How many marks of each accent a sheet has: lines of 20 pixels of it and more, at the top of each row of marks."""
    sheet = pixels(path).astype(int)
    counts = []
    for accent in ACCENTS:
        colour = [int(accent[i : i + 2], 16) for i in (1, 3, 5)]
        so_far = np.all(sheet == colour, axis=2).cumsum(1)
        lines = so_far[:, 20:] - so_far[:, :-20] == 20
        tops = np.flatnonzero(np.diff(lines.any(1).astype(int), prepend=0) == 1)
        tops = tops[np.diff(tops, prepend=-100) > 30]  # below its letters a mark is a plain line again
        counts.append(int((np.diff(lines[tops + 1].astype(int), prepend=0) == 1).sum()))
    return counts


def test_json_counts_every_label(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(InspectConfig(data=listed, json=True), capsys)
    index = read_manifest(listed).index("train")
    assert found["images"] == 9
    assert found["image_bytes"] == int(index["length"].sum())
    assert found["by_split"] == {"train": {"images": 9, "female": 2, "male": 5, "unknown": 2}}
    assert {name: row["images"] for name, row in found["by_age"].items()} == {
        "0-9": 2,
        "10-19": 1,
        "30-39": 2,
        "70-79": 1,
        "120 and over": 1,
        "unknown": 2,
    }
    assert found["by_age"]["30-39"] == {"images": 2, "female": 0, "male": 2, "unknown": 0}
    assert list(found["by_group"])[-1] == "unknown"
    assert {row["images"] for row in found["by_group"].values()} == {3, 2, 1}
    assert found["by_group"]["west"] == {"images": 2, "female": 0, "male": 1, "unknown": 1}
    assert found["subjects"]["all"] == {
        "subjects": 4,
        "min": 1,
        "median": 1.5,
        "max": 3,
        "both_genders": 1,
        "images_without": 2,
    }
    years = {"images": 2, "min": 0, "p5": 0.475, "median": 4.75, "p95": 9.025, "max": 9.5}
    assert found["years"]["female"] == pytest.approx(years)
    assert found["bytes"]["all"]["max"] == int(index["length"].max())


def test_splits_are_counted_each_and_alone(utkface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = numbers(InspectConfig(data=utkface, json=True), capsys)
    assert {name: row["images"] for name, row in every["by_split"].items()} == {"train": 20, "val": 10, "test": 10}
    assert every["by_age"]["30-39"] == {"images": 10, "female": 5, "male": 5, "unknown": 0}
    assert every["subjects"] == {}
    one = numbers(InspectConfig(data=utkface, split="val", json=True), capsys)
    assert one["by_split"] == {"val": every["by_split"]["val"]}
    assert one["images"] == 10


def test_tables_are_plain_in_a_log_and_leave_out_what_is_empty(
    utkface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert inspect_shards(parse_options(InspectConfig, "shard-tools inspect", [str(utkface)])) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert re.search(r"^train +20 +50\.0 % ", shown, re.MULTILINE)
    assert re.search(r"^20-29 +10 +25\.0 % +5 +5 +50\.0 %$", shown, re.MULTILINE)
    assert "0-9 " not in shown.replace("20-29", "")
    assert re.search(r"^unknown +subjects$", shown, re.MULTILINE)
    assert shown.count("unknown") == 1  # no column of unknown gender, as none is


def test_tables_show_no_control_characters(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    inspect_shards(InspectConfig(data=listed))
    shown = capsys.readouterr().out
    assert "alert('x')" in shown
    assert "\x1b" not in shown
    assert re.search(r"^unknown +2 ", shown, re.MULTILINE)
    assert re.search(r"^train +4 +1 +1\.5 +3 +1 +2$", shown, re.MULTILINE)


def test_a_sheet_has_a_card_for_every_face_drawn(utkface: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    inspect_shards(InspectConfig(data=utkface, sheet=sheet, count=15))
    female, male, unknown = marks(sheet)
    assert {female, male} == {7, 8}
    assert unknown == 0
    again, other = tmp_path / "again.png", tmp_path / "other.png"
    inspect_shards(InspectConfig(data=utkface, sheet=again, count=15))
    inspect_shards(InspectConfig(data=utkface, sheet=other, count=15, seed=1))
    assert again.read_bytes() == sheet.read_bytes() != other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "other.png", "sheet.png"]


def test_a_sheet_shows_all_genders_and_keeps_long_labels_on_their_cards(listed: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    inspect_shards(InspectConfig(data=listed, sheet=sheet))
    assert marks(sheet) == [2, 5, 2]
    # The gaps between the cards, and the margin around them, are paper from top to bottom.
    page = pixels(sheet)
    paper = np.all(page[120:] == page[0, 0], axis=2).all(0)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], paper.astype(int), [0]])))
    widths = (runs[1::2] - runs[::2]).tolist()
    assert widths[0] == widths[-1] == 40
    assert set(widths[1:-1]) == {14}


def test_faces_on_the_sheet_are_upright_and_in_proportion(tmp_path: Path) -> None:
    image = Image.new("RGB", (100, 50), "red")
    image.paste("lime", (0, 0, 50, 50))
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees clockwise: lime comes to the top
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "images" / "labels.json").write_text('[{"name": "turned.jpg", "gender": 0}]')
    pack(Listed(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, workers=1))
    inspect_shards(InspectConfig(data=tmp_path / "out", sheet=tmp_path / "sheet.png"))
    page = pixels(tmp_path / "sheet.png").astype(int)
    lime = np.argwhere((page[..., 1] > 200) & (page[..., 0] < 60) & (page[..., 2] < 60))
    red = np.argwhere((page[..., 0] > 200) & (page[..., 1] < 60) & (page[..., 2] < 60))
    assert lime[:, 0].max() < red[:, 0].min() + 4
    height = red[:, 0].max() - lime[:, 0].min()
    width = red[:, 1].max() - red[:, 1].min()
    assert height / width == pytest.approx(2, abs=0.1)


def test_a_page_runs_and_loads_nothing(listed: Path, tmp_path: Path) -> None:
    inspect_shards(InspectConfig(data=listed, html=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(" in page
    assert "<script" not in page
    assert "://" not in page
    assert set(re.findall(r"(?:src|href)=\"([^\",]*)", page)) == {"data:image/jpeg;base64"}
    assert page.count("<img ") == page.count('alt="') == 9
    assert 'alt="female, 0 years, east, subject a, a1"' in page
    assert 'alt="gender unknown, age unknown, group unknown, subject unknown, e1"' in page
    assert re.search(r'<th scope="row" title="west">west</th><td>2</td>', page)
    assert "<title>30-34: 2 male</title>" in page
    assert page.count("<svg ") == 4


def test_a_picture_that_does_not_decode_is_marked(tmp_path: Path) -> None:
    for seed in range(2):
        save(tmp_path / "images" / f"{seed}.jpg", seed)
    broken = tmp_path / "images" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    (tmp_path / "images" / "labels.json").write_text('[{"name": "0.jpg", "gender": 0}, {"name": "1.jpg", "gender": 1}]')
    pack(Listed(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, workers=1, decode=False))
    config = InspectConfig(data=tmp_path / "out", html=tmp_path / "page.html", sheet=tmp_path / "sheet.png")
    inspect_shards(config)
    assert marks(tmp_path / "sheet.png") == [1, 1, 0]
    assert (tmp_path / "page.html").read_text().count("does not decode") == 1


def test_a_sample_is_the_sources_own_bytes_and_labels(
    images: Path, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = read_manifest(listed).index("train")
    for number, row in enumerate(index):
        key = row["key"].decode()
        by_number = numbers(InspectConfig(data=listed, sample=str(number), image=tmp_path / "image", json=True), capsys)
        assert (tmp_path / "image").read_bytes() == (images / f"{key}.jpg").read_bytes()
        assert by_number == numbers(InspectConfig(data=listed, sample=key, json=True), capsys)
        assert by_number == numbers(InspectConfig(data=listed, sample=f"key:{key}", json=True), capsys)
        assert by_number["labels"]["source"] == f"{key}.jpg"
        for field in ("gender", "age", "row"):
            assert by_number[field] == by_number["labels"][field] == row[field]
        assert by_number["intact"] is True
        tar = (listed / by_number["file"]).read_bytes()
        assert tar[by_number["offset"] :][: by_number["length"]] == (images / f"{key}.jpg").read_bytes()


def test_a_sample_is_drawn_where_there_are_colours(
    listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    options = parse_options(InspectConfig, "shard-tools inspect", [str(listed), "--sample", "e1"])
    inspect_shards(options)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert "▀" not in plain
    for line in (r"gender +-1 \(unknown\)", "age +age unknown", "subject +unknown", "image +40x30 JPEG"):
        assert re.search(f"^{line}$", plain, re.MULTILINE)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    inspect_shards(options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "▀" in line]
    assert [line.count("▀") for line in lines] == [40] * 15


def test_a_changed_image_is_pointed_out(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(Listed(images=images, out=tmp_path / "out", val=0, test=0, workers=1))
    manifest = read_manifest(tmp_path / "out")
    tar = manifest.shard_paths("train")[0]
    content = bytearray(tar.read_bytes())
    row = manifest.index("train")[0]
    content[int(row["offset"]) + int(row["length"]) // 2] ^= 1
    tar.write_bytes(content)
    inspect_shards(InspectConfig(data=tmp_path / "out", sample="0"))
    assert "NOT that of the image" in capsys.readouterr().out
    tar.write_bytes(content[: int(row["offset"]) + int(row["length"])])
    with pytest.raises(UserError, match=r"no .*\.json at byte .*shard-tools verify"):
        inspect_shards(InspectConfig(data=tmp_path / "out", sample="0"))
    tar.write_bytes(content[: int(row["offset"]) + 5])
    with pytest.raises(UserError, match="ends within"):
        inspect_shards(InspectConfig(data=tmp_path / "out", sample="0"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "20"}, r"--sample 20: train has samples 0 to 19$"),
        ({"sample": "10", "split": "val"}, r"--sample 10: val has samples 0 to 9$"),
        ({"sample": "-1"}, r"train has samples 0 to 19$"),
        ({"sample": "nobody"}, r"no sample with key 'nobody' in train, val, test"),
        ({"split": "training"}, r"no split 'training'"),
        ({"sheet": Path("nowhere/sheet.png")}, r"no directory nowhere to write sheet.png into"),
        ({"html": Path("nowhere/page.html")}, r"no directory nowhere to write page.html into"),
        ({"html": Path()}, r"\. is a directory: name a file"),
        ({"sheet": Path("sheet.jpg")}, r"name it sheet\.png$"),
        ({"html": Path("notes.txt")}, r"name it notes\.html$"),
        ({"count": 0}, r"--count 0: give 1 to"),
        ({"seed": -1}, r"--seed -1 must not be negative"),
        ({"image": Path("face.jpg")}, r"add --sample N"),
        ({"sample": "0", "html": Path("page.html")}, r"--sample shows one sample alone"),
        ({"data": Path("nowhere")}, r"no manifest.json in nowhere"),
    ],
)
def test_a_wrong_option_is_one_line(
    utkface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        inspect_shards(InspectConfig(**{"data": utkface, **options}))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_real_faces_are_counted_and_drawn(real_faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "images"
    few.mkdir()
    for path in sorted(real_faces.iterdir())[::120]:
        (few / path.name).symlink_to(path)
    pack(Utkface(images=few, out=tmp_path / "out"))
    sheet = tmp_path / "sheet.png"
    found = numbers(InspectConfig(data=tmp_path / "out", sheet=sheet, json=True), capsys)
    names = [path.name.split("_") for path in few.iterdir()]
    total = sum(row["images"] for row in found["by_split"].values())
    assert total == found["images"] == len(names) - found["quarantined"]
    assert found["by_age"]["20-29"]["images"] == sum(20 <= int(name[0]) < 30 for name in names)
    assert marks(sheet) == [24, 24, 0]


def test_a_label_of_any_size_is_not_read(images: Path, tmp_path: Path) -> None:
    pack(Listed(images=images, out=tmp_path / "out", val=0, test=0, workers=1))
    manifest = read_manifest(tmp_path / "out")
    row = manifest.index("train")[0]
    name = f"{row['key'].decode()}.json"
    label = b'{"source": "' + bytes(1 << 16) + b'"}'
    place = int(row["offset"]) + BLOCK * (blocks(int(row["length"])) - 1)
    with manifest.shard_paths("train")[0].open("r+b") as file:
        file.seek(place)
        file.write(header(name.encode(), len(label)) + label + bytes(BLOCK))
    for options in ({"sample": "0"}, {"csv": tmp_path / "rows.csv"}):
        with pytest.raises(UserError, match=rf"no {name} at byte {place} of .*: it has 65550 bytes, more than labels"):
            inspect_shards(InspectConfig(data=tmp_path / "out", **options))
    with manifest.shard_paths("train")[0].open("r+b") as file:
        file.seek(place)
        file.write(header(name.encode(), 2) + b"{}")
    with pytest.raises(UserError, match=r"a JSON in .*\.tar has no source: look with shard-tools verify"):
        inspect_shards(InspectConfig(data=tmp_path / "out", csv=tmp_path / "rows.csv"))
