"""Tars that are damaged, cut short or hold odd members: no sample is lost silently."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from shard_tools.pack import pack
from shard_tools.sources import tar_stream
from shard_tools.sources.tar_stream import read_samples
from tests.shard_tools.others_tars import face, jpeg, left_out, packed, source, write

MOST = {"jpg": 1 << 20, "json": 1 << 20}


def test_what_cannot_be_used_is_in_the_quarantine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples: list[dict[str, Any]] = [face(number) for number in range(12)]
    del samples[0]["jpg"]
    del samples[1]["json"]
    samples[2]["json"] = {"age": 1}
    samples[3]["json"] = {"gender": "3"}
    samples[4]["json"] = {"gender": [1]}
    samples[5]["json"] = b"{"
    samples[6]["jpg"] = b"\xff\xd8\xffdamaged"
    samples[7]["png"] = jpeg(7, "PNG")
    samples[8]["JPG"] = samples[8].pop("jpg")
    del samples[9]["jpg"], samples[9]["json"]["age"]
    samples[9]["png"] = jpeg(9, "PNG")
    write(tmp_path / "a.tar", samples)
    write(tmp_path / "b.tar", [face(10), {**face(10), "jpg": jpeg(100)}, face(11)])
    pack(source(tmp_path / "out", tmp_path / "{a,b}.tar", age="json:age", optional=("age",)))
    assert left_out(tmp_path / "out") == {
        "a.tar::00000": "it has no image with the suffix jpg or jpeg or png or webp or bmp",
        "a.tar::00001": "it has no json:gender",
        "a.tar::00002": "it has no json:gender",
        "a.tar::00003": "its gender '3' is not stated to be male, female or unknown, as by --male 1",
        "a.tar::00004": "its json:gender is not a single value",
        "a.tar::00005": "its json is no JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "a.tar::00006": left_out(tmp_path / "out")["a.tar::00006"],
        "b.tar::00010.jpg": "its sample has a file with this suffix already",
        "b.tar::00010.json": "its sample has a file with this suffix already",
        "b.tar::00010.cls": "its sample has a file with this suffix already",
    }
    assert (
        "not decode" in left_out(tmp_path / "out")["a.tar::00006"]
        or "image" in left_out(tmp_path / "out")["a.tar::00006"]
    )
    assert set(packed(tmp_path / "out")) == {"00007", "00008", "00009", "00010+10", "00010+12", "00011+11", "00011+16"}
    printed = capsys.readouterr().out
    assert "10 images left out, listed in quarantine/quarantine.csv:" in printed
    assert "  2: it has no json:gender" in printed


@pytest.mark.parametrize("compressed", [False, True])
def test_no_truncated_tar_loses_a_sample_silently(tars: Path, tmp_path: Path, compressed: bool) -> None:
    content = (tars / "a-002.tar").read_bytes()
    content = gzip.compress(content, 1) if compressed else content.rstrip(b"\0") + bytes(1024)
    damaged = tmp_path / "a.tar"
    end_of_archive = 0 if compressed else 512  # tarfile reads one block of zeros as the end, writers write two
    for length in range(0, len(content) - end_of_archive, 217 if compressed else 256):
        damaged.write_bytes(content[:length])
        *samples, end = read_samples(str(damaged), MOST)
        assert end.key == ""
        assert "truncated" in end.problem
        assert all(not sample.problem for sample in samples)
    damaged.write_bytes(content)
    assert [sample.key for sample in read_samples(str(damaged), MOST)] == [f"{number:05d}" for number in range(24, 30)]


def test_damage_within_a_tar_is_noticed(tars: Path, tmp_path: Path) -> None:
    content = (tars / "a-002.tar").read_bytes()
    headers = []
    with tarfile.open(tars / "a-002.tar") as tar:
        headers = [member.offset for member in tar]
    path = tmp_path / "a.tar"
    for offset in headers:
        path.write_bytes(content[:offset] + b"?" + content[offset + 1 :])
        assert (
            list(read_samples(str(path), MOST))[-1].problem
            == f"the tar is damaged: there is no header at byte {offset}"
        )
    path.write_bytes(content + content)
    samples = list(read_samples(str(path), MOST))
    assert len(samples) == 7
    assert "goes on after its end" in samples[-1].problem
    packed_again = gzip.compress(content, 1)
    path.write_bytes(packed_again[:-8] + bytes(8))
    assert "CRC check failed" in list(read_samples(str(path), MOST))[-1].problem
    with tarfile.open(path, "w"):
        pass
    assert [sample.problem for sample in read_samples(str(path), MOST)] == ["the tar has no samples"]


def test_members_of_every_kind_are_followed(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name in ("dir", "0.jpg", "link.jpg", f"{'long/' * 25}1.jpg", "README", ".hidden.jpg"):
                member = tarfile.TarInfo(name)
                member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
                member.type = {"dir": tarfile.DIRTYPE, "link.jpg": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE)
                member.size = 700 if member.isreg() else 0
                tar.addfile(member, io.BytesIO(bytes(700)))
        assert [(sample.key, sample.problem) for sample in read_samples(str(path), MOST)] == [
            ("0", ""),
            (f"{'long/' * 25}1", ""),
        ]


def test_a_file_that_is_too_large_to_be_held_is_left_out_alone(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "2.jpg"}
    sparse["GNU.sparse.realsize"] = str(1 << 40)  # of which the tar has nothing
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("0.jpg", 100_000), ("1.jpg", 100_001), ("2.jpg", 512), ("3.jpg", 700)):
            member = tarfile.TarInfo(name)
            member.size = size
            if name == "2.jpg":
                member.pax_headers = sparse
            tar.addfile(member, io.BytesIO(b"1\n0\n0\n".ljust(size, b"\0")))
    assert [(sample.key, sample.problem) for sample in read_samples(str(tmp_path / "a.tar"), {"jpg": 100_000})] == [
        ("0", ""),
        ("3", ""),
        ("1.jpg", "it has more than 100000 bytes"),
        ("2.jpg", "it has more than 100000 bytes"),
    ]


def test_of_a_sample_only_what_is_used_is_held_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_BYTES", 100_000)
    monkeypatch.setattr(tar_stream, "MAX_HEADER_BYTES", 20_000)
    content = bytes(59_000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.jpg", "0.npy", "0.PNG", "0.webp", "0.bmp", "1.json", "1.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    most = {**dict.fromkeys(("jpg", "png", "webp", "bmp"), 100_000), "json": 1000}
    assert list(read_samples(str(tmp_path / "a.tar"), most)) == [
        ("0", {"jpg": content, "npy": b"", "png": content}, ""),
        ("1", {"jpg": content}, ""),
        ("0.webp", {}, "its sample has more than 100000 bytes"),
        ("1.json", {}, "it has more than 1000 bytes"),
    ]


def test_a_label_that_no_program_writes_is_not_parsed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [face(1), {**face(2), "json": b'{"gender": 1, "x": "' + bytes(1 << 20) + b'"}'}, face(5)])
    pack(source(tmp_path / "out", tmp_path / "a.tar"))
    assert left_out(tmp_path / "out") == {
        "a.tar::00002": "it has no json:gender",
        "a.tar::00002.json": "it has more than 1048576 bytes",
    }
    assert len(packed(tmp_path / "out")) == 2


@pytest.mark.parametrize("kind", ["GNU name", "pax name", "pax comment", "sparse map"])
def test_headers_without_end_are_not_held(kind: str, tmp_path: Path) -> None:
    form = tarfile.GNU_FORMAT if kind == "GNU name" else tarfile.PAX_FORMAT
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for name in ("0.jpg", "n" * (3 << 20) if "name" in kind else "1.jpg"):
            member = tarfile.TarInfo(name)
            content = bytes(700)
            if name == "1.jpg":
                sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "700"}
                member.pax_headers = {"comment": "c" * (3 << 20)} if kind == "pax comment" else sparse
                content = b"1048576\n" + b"1\n" * (3 << 19)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    first, last = read_samples(str(tmp_path / "a.tar"), MOST)
    assert (first.key, first.problem) == ("0", "")
    assert last.problem == "the tar is truncated or damaged: the headers of a file have more than 1048576 bytes"


@pytest.mark.timeout(60)
def test_a_size_that_a_header_claims_is_not_waited_for(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("0.jpg", "1.jpg", "2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 700
            member.pax_headers = {"size": str(1 << 50)} if name == "1.jpg" else {}
            tar.addfile(member, io.BytesIO(bytes(700)))
    first, *_, last = read_samples(str(tmp_path / "a.tar"), MOST)
    assert (first.key, first.problem) == ("0", "")
    assert last.problem == "the tar is truncated or damaged: unexpected end of data"


def test_a_truncated_tar_is_packed_as_far_as_it_goes(tars: Path, tmp_path: Path) -> None:
    content = (tars / "a-002.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 3])
    (tmp_path / "no.tar").write_text("<html>not here</html>")
    pack(source(tmp_path / "out", tmp_path / "{a,no}.tar", tars / "a-000.tar"))
    reasons = left_out(tmp_path / "out")
    assert reasons["a.tar"].startswith("the tar is truncated or damaged, samples may be missing: ")
    assert reasons["no.tar"].startswith("the tar is truncated or damaged, samples may be missing: ")
    assert "00024" in packed(tmp_path / "out")
    assert len(packed(tmp_path / "out")) >= 13
