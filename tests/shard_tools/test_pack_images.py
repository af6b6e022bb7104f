from __future__ import annotations

import io
import struct
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

from shard_tools.commands.synthetic import SyntheticConfig
from shard_tools.images import fingerprint
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.synthetic import Synthetic
from shard_tools.sources.utkface import Utkface
from shard_tools.synthetic.files import draw_faces
from tests.shard_tools.image_files import chunk
from tests.shard_tools.pictures import picture, rows, save


def image(out: Path, row: Any, split: str = "train") -> Image.Image:
    """The picture of a row of the index."""
    tar = read_manifest(out).shard_paths(split)[row["shard"]].read_bytes()
    return Image.open(io.BytesIO(tar[row["offset"] : row["offset"] + row["length"]]))


def test_gray_and_alpha_images_are_packed_as_they_are(tmp_path: Path) -> None:
    modes = ("L", "RGBA", "CMYK", "P")
    for number, mode in enumerate(modes):
        image = picture(number).convert(mode)
        suffix = "jpg" if mode in ("L", "CMYK") else "png"
        save(tmp_path / "images" / "male" / f"{mode}.{suffix}", image)
    pack(Folders(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0))
    manifest = read_manifest(tmp_path / "out")
    with tarfile.open(manifest.shard_paths("train")[0]) as tar:
        images = [m for m in tar.getmembers() if not m.name.endswith(".json")]
        found = set()
        for member in images:
            file = tar.extractfile(member)
            assert file
            found.add(Image.open(io.BytesIO(file.read())).mode)
    assert found == set(modes)


def test_a_decompression_bomb_is_left_out_undecoded(utkface: Path, tmp_path: Path) -> None:
    Image.new("1", (8_000, 7_000)).save(utkface / "1_0_0_20170109000000001.png")
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    assert "8000x7000 pixels" in (tmp_path / "out" / "quarantine" / "quarantine.csv").read_text()


def test_pictures_that_differ_from_top_to_bottom_alone_do_not_look_the_same(tmp_path: Path) -> None:
    """As the faces of two people do that are cropped alike, with black where the photo ends."""
    across, down = np.meshgrid(np.linspace(0, 120, 64), np.linspace(0, 120, 64))
    for number, pixels in enumerate((across + down, across - down + 120)):
        save(tmp_path / "images" / "male" / f"{number}.png", Image.fromarray(pixels.astype(np.uint8)))
    plain = Image.new("L", (64, 64))
    for number in (2, 3):
        save(tmp_path / "images" / "male" / f"{number}.png", plain.resize((64 + number, 64)))
    pack(Folders(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0))
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert "4 images in 4 groups" in summary
    assert "look the same" not in summary
    assert sorted(rows(tmp_path / "out")["appearance"] == 0) == [False, False, True, True]


def test_a_small_png_that_inflates_to_gigabytes_is_not_inflated_to_its_end() -> None:
    deflate = zlib.compressobj()
    begin = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    data = begin + 4000 * again
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    began = time.process_time()
    fingerprint(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert time.process_time() - began < 1


def test_without_decoding_only_the_first_bytes_are_looked_at(utkface: Path, tmp_path: Path) -> None:
    (utkface / "1_0_0_20170109000000001.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    (utkface / "2_0_0_20170109000000002.jpg").write_bytes(b"")
    (utkface / "3_0_0_20170109000000003.jpg").write_bytes(b"text")
    pack(Utkface(images=utkface, out=tmp_path / "out", decode=False, val=0, test=0))
    assert len(rows(tmp_path / "out")) == 41
    assert not rows(tmp_path / "out")["appearance"].any()
    assert read_manifest(tmp_path / "out").quarantined == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1", "I;16"])
def test_resized_images_are_upright_jpegs_of_the_size_asked_for(tmp_path: Path, mode: str) -> None:
    gray = np.linspace(0, 255, 60 * 80).reshape(60, 80).astype(np.uint16)
    stored = Image.fromarray(gray * 257) if mode == "I;16" else Image.fromarray(gray.astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x112] = 6  # turn it a quarter clockwise
    suffix = "jpg" if mode in ("L", "CMYK") else "png"
    save(tmp_path / "images" / "male" / f"a.{suffix}", stored, exif=exif)
    pack(Folders(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, resize=30, quality=90))
    packed = image(tmp_path / "out", rows(tmp_path / "out")[0])
    assert (packed.format, packed.size) == ("JPEG", (30, 40))
    assert packed.mode == ("L" if mode in ("L", "LA", "1", "I;16") else "RGB")
    assert 0x112 not in packed.getexif()
    pixels = np.asarray(packed.convert("L"), dtype=float)
    assert pixels[:, 0].mean() > 200 > 50 > pixels[:, -1].mean()  # the bright bottom is at the left now


def test_small_images_are_not_enlarged(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=0, resize=100))
    packed = [image(tmp_path / "out", row) for row in rows(tmp_path / "out")]
    assert {(picture.format, picture.size) for picture in packed} == {("JPEG", (24, 20))}


def test_an_image_that_says_it_lies_on_its_side_looks_the_same_original_or_encoded_anew(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    save(tmp_path / "images" / "male" / "a.jpg", picture(3, (48, 32)), quality=95, exif=exif)
    pack(Folders(images=tmp_path / "images", out=tmp_path / "as-is", val=0, test=0))
    pack(Folders(images=tmp_path / "images", out=tmp_path / "anew", val=0, test=0, quality=95))
    assert "1 images lie on their side" in (tmp_path / "as-is" / "summary.txt").read_text()
    assert rows(tmp_path / "as-is")["appearance"] == rows(tmp_path / "anew")["appearance"]

    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def decoded(encoded: Any) -> Any:
        return fn.decoders.image(fn.external_source(lambda: [np.frombuffer(encoded, np.uint8)], batch=True))

    pixels = []
    for out in (tmp_path / "as-is", tmp_path / "anew"):
        row = rows(out)[0]
        tar = read_manifest(out).shard_paths("train")[0].read_bytes()
        pipeline = decoded(tar[row["offset"] : row["offset"] + row["length"]])
        pipeline.build()
        pixels.append(pipeline.run()[0].at(0).astype(float))
    assert pixels[0].shape == pixels[1].shape == (48, 32, 3)
    assert np.abs(pixels[0] - pixels[1]).mean() < 4


def test_a_sample_takes_no_more_than_its_blocks_in_the_tar(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=0))
    split = read_manifest(tmp_path / "out").splits["train"]
    lengths = rows(tmp_path / "out")["length"].astype(int)
    padded = (-(-lengths // 512) * 512).sum()
    assert split.shards[0].bytes == padded + 3 * 512 * len(lengths) + 1024


def test_tars_are_plain_ustar_without_time_or_owner(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "train" / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert all(m.isreg() and (m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in members)
    assert not any(m.pax_headers for m in members)


def test_the_index_has_the_hash_of_every_image(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=0))
    for row in rows(tmp_path / "out"):
        encoded = next(utkface.glob(f"{row['key'].decode()}.*")).read_bytes()
        assert row["content"] == xxhash.xxh3_64(encoded).intdigest()
        assert row["appearance"] != 0


def test_a_shard_is_not_larger_than_asked_for_unless_one_image_is(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", shard_mb=0.02))
    shards = read_manifest(tmp_path / "out").splits["train"].shards
    assert all(shard.bytes <= 20_000 for shard in shards)
    assert all(shard.bytes > 14_000 for shard in shards[:-1])
    pack(Utkface(images=utkface, out=tmp_path / "tiny", shard_mb=0.001))
    assert {shard.samples for shard in read_manifest(tmp_path / "tiny").splits["train"].shards} == {1}


def test_drawn_faces_are_packed_as_they_are_drawn_into_files(tmp_path: Path) -> None:
    draw_faces(SyntheticConfig(out=tmp_path / "files", count=30, size=32))
    pack(Synthetic(out=tmp_path / "out", count=30, size=32, val=0, test=0))
    index = rows(tmp_path / "out")
    assert len(index) == 30
    for row in index:
        path = tmp_path / "files" / f"{row['key'].decode()}.JPG"
        tar = read_manifest(tmp_path / "out").shard_paths("train")[0].read_bytes()
        assert tar[row["offset"] : row["offset"] + row["length"]] == path.read_bytes()
        assert row["gender"] == ("M" in path.name)
