from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.commands.verify import VerifyConfig
from shard_tools.images import content_hash, fingerprint
from shard_tools.manifest import Manifest, read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.morph import Morph
from shard_tools.sources.synthetic import Synthetic
from shard_tools.sources.table import Table
from shard_tools.tar import BLOCK
from shard_tools.verify import verify
from shard_tools.verify.leaks import NOT_FOUND
from shard_tools.verify.shard import ShardTask, check_shard
from tests.shard_tools.damage import (
    FAST,
    FULL,
    INDEX,
    SECOND,
    SHARD,
    cut,
    edited_json,
    flip,
    flipped,
    indexed,
    jpeg,
    key_in,
    put,
    removed,
    row,
    same_in_val,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of each of 24 subjects, named as MORPH's."""
    folder = tmp_path_factory.mktemp("morph")
    for seed in range(48):
        name = f"{seed // 2:06d}_{seed % 2:02d}{'FM'[seed // 2 % 2]}{20 + seed}.JPG"
        (folder / name).write_bytes(jpeg(seed, quality=90))
    return folder


@pytest.fixture(scope="module")
def packed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures packed: 24 for training in several shards, 12 for validation and 12 for testing."""
    out = tmp_path_factory.mktemp("packed") / "data"
    pack(Morph(images=images, out=out, val=0.25, test=0.25, shard_mb=0.02))
    assert len(read_manifest(out).splits["train"].shards) >= 3
    return out


@pytest.fixture
def data(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed pictures, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "data"))


Check = Callable[..., list[str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Verifies and returns the lines printed; they are problems if and only if the exit code is 1."""

    def check(*directories: Path, code: int = 1, **options: Any) -> list[str]:
        capsys.readouterr()
        returned = verify(VerifyConfig(directories=directories, **{"workers": 1, **options}))
        lines = capsys.readouterr().out.splitlines()
        assert returned == code, lines
        return lines

    return check


def test_what_was_packed_is_well(packed: Path, check: Check) -> None:
    shards = sum(len(split.shards) for split in read_manifest(packed).splits.values())
    assert check(packed, code=0) == [
        f"{packed}: 48 images in {shards} shards, unchanged since packed; no image is in two splits, "
        "compared by bytes, picture and subject"
    ]
    assert check(packed, code=0, fast=True) == [
        f"{packed}: 48 images in {shards} shards; sizes, manifest and index agree, no shard was read"
    ]
    assert check(packed, code=0, leaks=True) == [
        f"{packed}: no image is in two splits, compared by bytes, picture and subject",
        NOT_FOUND,
    ]
    assert "other crops of the same photograph" in NOT_FOUND


def test_drawn_faces_of_the_command_line_are_well(shards: Path, check: Check) -> None:
    assert "320 images" in check(shards, code=0)[0]


@pytest.mark.parametrize("damage", FAST)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "full"])
def test_what_files_and_sizes_tell_is_named(damage: str, fast: bool, data: Path, check: Check) -> None:
    make, says = FAST[damage]
    make(data)
    text = "\n".join(check(data, fast=fast))
    assert all(part in text for part in says), text


@pytest.mark.parametrize("damage", FULL)
def test_what_reading_every_byte_tells_is_named(damage: str, data: Path, check: Check) -> None:
    make, says = FULL[damage]
    key = key_in(data)
    make(data)
    text = "\n".join(check(data))
    assert all(part.replace("KEY", key) in text for part in says), text


@pytest.mark.parametrize("damage", ["another gender", "another image", "bit in an idx", "another key in the index"])
def test_one_damage_is_one_line(damage: str, data: Path, check: Check) -> None:
    FULL[damage][0](data)
    assert len(check(data)) == 1


@settings(deadline=None, max_examples=40)
@given(bit=st.integers(0, 8 * 30_000))
def test_any_flipped_bit_names_its_shard_and_sample(packed: Path, bit: int) -> None:
    path = packed / SECOND
    content = path.read_bytes()
    at = bit // 8 % len(content)
    rows = [sample for sample in np.load(packed / INDEX) if sample["shard"] == 1]
    whose = [s["key"].decode() for s in rows if s["offset"] <= at < s["offset"] + s["length"]]
    manifest = read_manifest(packed)
    first, second = manifest.splits["train"].shards[:2]
    try:
        flip(path, at, bit % 8)
        lines = list(check_shard(packed, ShardTask(second, packed / INDEX, first.samples)).lines())
    finally:
        path.write_bytes(content)
    assert lines[0].startswith(f"{path}: its SHA-256 is not the manifest's")
    assert all(any(f"{key}.jpg at byte" in line for line in lines) for key in whose)
    assert len(lines) < 6


def test_two_damaged_shards_are_both_named(data: Path, check: Check) -> None:
    flip(data / SHARD, 700)
    flip(data / "test/test-000000.tar", 700)
    lines = check(data, workers=2)
    assert sum(SHARD in line for line in lines) == 2
    assert sum("test/test-000000.tar" in line for line in lines) == 2
    assert len(lines) == 4


def test_all_problems_are_named_at_once(data: Path, check: Check) -> None:
    for damage in (
        flipped("val/val-000000.tar", 700),
        FULL["bit in an idx"][0],
        FAST["stray tar"][0],
        FAST["unfinished"][0],
        removed(SECOND),
    ):
        damage(data)
    text = "\n".join(check(data))
    for part in ("val-000000.tar: its SHA", "000000.idx: line 2", "train-000099.tar", ".packing", f"{SECOND}: is"):
        assert part in text


def test_a_shard_that_is_all_wrong_takes_few_lines(images: Path, tmp_path: Path, check: Check) -> None:
    pack(Morph(images=images, out=tmp_path / "data", val=0, test=0))
    cut(SHARD, 0)(tmp_path / "data")
    lines = check(tmp_path / "data")
    assert len(lines) == 21
    assert lines[-1] == f"{tmp_path / 'data' / SHARD}: and 31 more"  # size, hash, end, and 48 samples


def test_a_shard_is_read_on_after_damage(data: Path, check: Check) -> None:
    """Two damaged samples of one shard are both found, the second behind the damaged header of the first."""
    first, third = row(data, 0), row(data, 2)
    flip(data / SHARD, int(first["offset"]) - BLOCK)
    flip(data / SHARD, int(third["offset"]) + 300)
    text = "\n".join(check(data))
    assert f"sample {first['key'].decode()} at byte 512 is not there" in text
    assert f"{third['key'].decode()}.jpg at byte {third['offset']}" in text
    assert row(data, 1)["key"].decode() not in text


def test_a_tar_is_read_without_an_index_too(data: Path, check: Check) -> None:
    (data / INDEX).unlink()
    flip(data / SHARD, int(np.load(data / "val/index.npy")["offset"][0]) - 1)
    lines = check(data)
    assert [line for line in lines if "index.npy" in line] == [f"{data / INDEX}: is missing"]
    assert any(line.startswith(f"{data / SHARD}: it has a") for line in lines)


def test_look_alikes_are_no_leak_where_none_was_promised(data: Path, check: Check) -> None:
    same_in_val("appearance")(data)
    edited_json(lambda content: content["options"].update(near_duplicates=False))(data)
    assert check(data, leaks=True, code=0)


def test_names_in_damaged_files_do_not_reach_the_terminal(data: Path, check: Check) -> None:
    indexed(put("key", b"\x1b[31m\nred"))(data)
    lines = check(data)
    assert len(lines) == 1
    assert "sample ?[31m?red in the index" in lines[0]


class Nameless(Folders):
    """Gives the third image a key that readers take for a hidden file."""

    def key(self, name: str) -> str:
        return "" if name.endswith("2.jpg") else super().key(name)


def test_samples_that_webdataset_does_not_read_are_named(tmp_path: Path, check: Check) -> None:
    (tmp_path / "images" / "male").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "images" / "male" / f"{number}.jpg").write_bytes(jpeg(number))
    pack(Nameless(images=tmp_path / "images", out=tmp_path / "data", val=0, test=0, workers=1))
    lines = check(tmp_path / "data")
    assert lines == [f"{tmp_path / 'data' / SHARD}: webdataset reads 3 of its 4 samples, it does not read ''"]


# Between two data sets.


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A data set of another source: its second picture is one of the first data set, its third only looks like one."""
    for number, image in enumerate((jpeg(1000), jpeg(5, quality=90), jpeg(7, quality=90, optimize=True), jpeg(1003))):
        path = tmp_path / "images" / ("male" if number % 2 else "female") / f"p{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    assert fingerprint(jpeg(7, quality=90, optimize=True)).appearance == fingerprint(jpeg(7, quality=90)).appearance
    return Folders(images=tmp_path / "images", out=tmp_path / "other", val=0, test=0)


def without_looks(manifest: Manifest) -> None:
    """Makes the data set one that was packed without decoding."""
    for name in manifest.splits:
        indexed(lambda index: index["appearance"].fill(0), name)(manifest.root)


@pytest.mark.parametrize("looked", ["both", "neither", "first"])
def test_pictures_in_two_data_sets_are_named(looked: str, data: Path, folders: Folders, check: Check) -> None:
    pack(folders)
    if looked == "neither":
        without_looks(read_manifest(data))
    if looked != "both":
        without_looks(read_manifest(folders.out))
    lines = check(data, folders.out, leaks=True, workers=2 if looked == "neither" else 1)
    same = [line for line in lines if "1 byte-identical image is in both" in line]
    alike = [line for line in lines if "2 pictures that look the same (byte-identical or not) are in both" in line]
    assert len(same) == 1
    assert "000002_01F25" in same[0]
    assert "male-p1" in same[0]
    assert "000003_01M27 and female-p2" in "".join(alike)
    assert len(lines) == len(same) + len(alike)  # subjects of different sources are not compared


def test_subjects_are_compared_within_one_source_only(
    data: Path, images: Path, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((folders.images / "female").iterdir()) + sorted((folders.images / "male").iterdir()):
        path.write_bytes(jpeg(content_hash(path.read_bytes())))  # pictures of nobody else
    pack(folders)
    capsys.readouterr()
    assert verify(VerifyConfig(directories=(data, folders.out), leaks=True)) == 0
    said = capsys.readouterr()
    by = "compared by bytes and picture"
    assert said.out == f"{data} and {folders.out}: no image is in two of them, {by}\n{NOT_FOUND}\n"
    assert not said.err  # the other one has no subjects

    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "000003_09M50.JPG").write_bytes(jpeg(2000))
    pack(Morph(images=tmp_path / "again", out=tmp_path / "second", val=0, test=1))
    capsys.readouterr()
    assert verify(VerifyConfig(directories=(data, tmp_path / "second"), leaks=True)) == 1
    said = capsys.readouterr()
    assert "second/test: 1 subject is in both, as 2 samples and 1 sample: 000003_0" in said.out
    assert said.out.count("\n") == 1
    assert not said.err


@pytest.mark.parametrize("drawn", [False, True])
def test_equal_subject_numbers_of_different_people_are_no_leak(
    drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tables that count their people, and two drawings of other seeds; drawings of one seed are the same people."""
    for place in range(2):
        out, images = tmp_path / f"out{place}", tmp_path / f"images{place}"
        if drawn:
            pack(Synthetic(count=24, size=32, seed=place, out=out))
            continue
        images.mkdir()
        for number in range(1, 5):
            (images / f"{number}.jpg").write_bytes(jpeg(100 * place + number))
        rows = "".join(f"{number}.jpg,{'FM'[number % 2]},{number}\n" for number in range(1, 5))
        (tmp_path / "people.csv").write_text(f"image,sex,person\n{rows}")
        pack(Table(images=images, table=(tmp_path / "people.csv",), gender="sex", subject="person", out=out))
    capsys.readouterr()
    assert verify(VerifyConfig(directories=(tmp_path / "out0", tmp_path / "out1"), leaks=True)) == 0
    assert "it is not known whether equal ids in them mean the same people" in capsys.readouterr().err
    if drawn:
        pack(Synthetic(count=12, size=48, seed=1, out=tmp_path / "larger"))
        capsys.readouterr()
        assert verify(VerifyConfig(directories=(tmp_path / "out1", tmp_path / "larger"), leaks=True)) == 1
        assert "subjects are in both" in capsys.readouterr().out


def test_several_data_sets_are_each_verified(packed: Path, data: Path, check: Check) -> None:
    assert len(check(packed, data, code=0)) == 2
    flip(data / SHARD, 700)
    assert all(line.startswith(str(data)) for line in check(packed, data))


def test_what_cannot_work_is_said(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg(0))
    for options, says in (
        ({"directories": ()}, "no data set given"),
        ({"directories": (tmp_path / "nowhere",)}, "no data set in"),
        ({"directories": (packed, tmp_path / "pictures")}, "no data set in"),
        ({"directories": (packed,), "fast": True, "leaks": True}, "--fast or --leaks"),
        ({"directories": (packed,), "workers": 0}, "--workers 0"),
    ):
        with pytest.raises(UserError, match=says):
            verify(VerifyConfig(**options))


def test_the_command_line_is_that_of_the_documentation() -> None:
    given = parse_options(VerifyConfig, "shard-tools verify", ["A", "B", "--leaks", "--workers", "3"])
    assert given == VerifyConfig(directories=(Path("A"), Path("B")), leaks=True, workers=3)
