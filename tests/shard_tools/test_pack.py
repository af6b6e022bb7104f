from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import xxhash
from nvidia.dali import fn, pipeline_def
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shard_tools.commands import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.morph import Morph
from shard_tools.sources.synthetic import Synthetic
from shard_tools.sources.utkface import Utkface
from shard_tools.synthetic.files import SyntheticConfig, draw_faces
from tests.conftest import Run


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def utkface(tmp_path: Path) -> Path:
    """40 images in UTKFace's convention: 20 men and 20 women, each of a moment of its own."""
    for seed in range(40):
        name = f"{20 + seed}_{seed % 2}_{seed % 5}_20170109{seed:09d}.jpg.chip.jpg"
        save(tmp_path / "utk" / name, picture(seed), quality=90)
    return tmp_path / "utk"


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_samples_are_the_original_bytes_with_converted_labels(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0.25, test=0.25))
    manifest = read_manifest(tmp_path / "out")
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 20, "val": 10, "test": 10}
    seen = set()
    for name in manifest.splits:
        index = manifest.index(name)
        for row in index:
            tar = manifest.shard_paths(name)[row["shard"]].read_bytes()
            encoded = tar[row["offset"] : row["offset"] + row["length"]]
            source = next(utkface.glob(f"{row['key'].decode()}.*"))
            assert encoded == source.read_bytes()
            age, gender, race, _ = source.name.split("_")
            assert row["gender"] == 1 - int(gender)  # UTKFace has 0 male, hpcgender has 1 male
            assert row["age"] == float(age)
            assert row["group"] == [b"White", b"Black", b"Asian", b"Indian", b"Other"][int(race)]
            seen.add(source.name)
    assert len(seen) == 40


def test_packing_again_gives_the_same_bytes(utkface: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        pack(Utkface(images=utkface, out=tmp_path / out, workers=1 if out == "a" else 3))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    pack(Utkface(images=utkface, out=tmp_path / "c", seed=1))
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its last file open
def test_other_tools_read_the_shards(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", shard_mb=0.02))
    manifest = read_manifest(tmp_path / "out")
    index = manifest.index("train")
    paths = manifest.shard_paths("train")
    assert len(paths) > 1

    listed = subprocess.run(["tar", "tf", paths[0]], capture_output=True, text=True, check=True).stdout.split()
    keys = [row["key"].decode() for row in index]
    assert listed[:4] == [f"{keys[0]}.jpg", f"{keys[0]}.json", f"{keys[1]}.jpg", f"{keys[1]}.json"]

    samples = list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == keys
    assert [json.loads(sample["json"])["gender"] for sample in samples] == index["gender"].tolist()

    @pipeline_def(batch_size=len(index), num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def by_dali() -> object:
        idx = [str(path.with_suffix(".idx")) for path in paths]
        images, labels = fn.readers.webdataset(paths=[str(p) for p in paths], index_paths=idx, ext=["jpg", "json"])  # type: ignore[misc]
        return images, labels

    pipeline = by_dali()
    pipeline.build()
    images, labels = pipeline.run()
    assert [bytes(images.at(i)) for i in range(len(index))] == [sample["jpg"] for sample in samples]
    assert [bytes(labels.at(i)) for i in range(len(index))] == [sample["json"] for sample in samples]


def test_the_idx_is_what_dalis_own_tool_writes(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    tar = tmp_path / "out" / "train" / "train-000000.tar"
    wds2idx = Path(sys.executable).with_name("wds2idx")
    subprocess.run([wds2idx, tar, tmp_path / "expected.idx"], capture_output=True, check=True)
    assert tar.with_suffix(".idx").read_text() == (tmp_path / "expected.idx").read_text()


def test_tars_are_plain_ustar_without_time_or_owner(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "train" / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert all(m.isreg() and (m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in members)
    assert not any(m.pax_headers for m in members)


def test_copies_of_a_picture_stay_on_one_side(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for seed in range(30):
        for copy in range(3):  # the same bytes, and the same pixels in other bytes
            save(images / f"30_0_0_20170109{seed:06d}{copy:03d}.jpg", picture(seed), optimize=copy == 2)
    pack(Utkface(images=images, out=tmp_path / "out", val=0.3, test=0.3))
    manifest = read_manifest(tmp_path / "out")
    where: dict[bytes, set[str]] = {}
    for name in manifest.splits:
        for key in manifest.index(name)["key"]:
            where.setdefault(key[:-3], set()).add(name)
    assert len(where) == 30
    assert all(len(splits) == 1 for splits in where.values())


def test_pictures_of_a_morph_subject_stay_on_one_side(faces: Path, shards: Path) -> None:
    manifest = read_manifest(shards)
    subjects = [set(manifest.index(name)["subject"].tolist()) for name in manifest.splits]
    assert len(subjects) == 3
    assert not subjects[0] & subjects[1]
    assert not (subjects[0] | subjects[1]) & subjects[2]
    assert sum(split.samples for split in manifest.splits.values()) == len(list(faces.iterdir()))


def test_all_images_can_be_for_testing(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=1))
    assert {name: split.samples for name, split in read_manifest(tmp_path / "out").splits.items()} == {"test": 40}


def test_morph_names_give_the_labels(tmp_path: Path) -> None:
    save(tmp_path / "images" / "065649_01M46.JPG", picture(0))
    save(tmp_path / "images" / "000007_12F102.JPG", picture(1))
    pack(Morph(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0))
    rows = {row["subject"].item(): row for row in read_manifest(tmp_path / "out").index("train")}
    assert (rows[b"065649"]["gender"], rows[b"065649"]["age"]) == (1, 46)
    assert (rows[b"000007"]["gender"], rows[b"000007"]["age"]) == (0, 102)


def test_folders_keep_the_sources_own_splits(tmp_path: Path) -> None:
    for number, folder in enumerate(("Training/male", "Training/female", "Validation/male", "Validation/female")):
        for picture_number in range(3):
            save(tmp_path / "images" / folder / f"{picture_number}.png", picture(10 * number + picture_number))
    pack(Folders(images=tmp_path / "images", out=tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    assert {name: split.counts for name, split in manifest.splits.items()} == {
        "train": {"female": 3, "male": 3},
        "val": {"female": 3, "male": 3},
    }
    assert len({key for name in manifest.splits for key in manifest.index(name)["key"].tolist()}) == 12


def test_what_cannot_be_used_is_left_out_with_the_reason(utkface: Path, tmp_path: Path) -> None:
    whole = next(utkface.iterdir()).read_bytes()
    (utkface / "1_0_0_20170109000000001.jpg").write_bytes(whole[: len(whole) // 2])
    (utkface / "2_0_0_20170109000000002.jpg").write_bytes(b"")
    (utkface / "3_0_0_20170109000000003.jpg").write_text("not an image")
    (utkface / "39_1_20170116174525125.jpg").write_bytes(whole)
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.quarantined == 4
    assert sum(split.samples for split in manifest.splits.values()) == 40
    reasons = (tmp_path / "out" / "quarantine" / "quarantine.csv").read_text()
    for reason in ("runcated", "empty", "not an image", "age_gender_race_time"):
        assert reason in reasons


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["utkface", "--images", "missing"], "no directory missing"),
        (["utkface", "--images", "empty"], "no images in empty"),
        (["utkface", "--images", "wrong"], "none of 1 images can be used"),
        (["folders", "--images", "wrong"], "no class folders in wrong"),
        (["utkface", "--images", "wrong", "--val", "0.6", "--test", "0.5"], "are not shares of all images"),
        (["utkfaces"], "did you mean utkface?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path / "wrong" / "nobody.jpg", picture(0))
    before = digest(tmp_path)
    done = run("shard_tools", "pack", *arguments, *(["--out", "out"] if len(arguments) > 1 else []), cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert digest(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "wrong"}


def test_a_directory_with_something_in_it_is_not_packed_into(utkface: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        pack(Utkface(images=utkface, out=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def text(comment: str) -> PngInfo:
    """Makes the file another one, and the picture not."""
    info = PngInfo()
    info.add_text("Comment", comment)
    return info


def rows(out: Path, split: str = "train") -> Any:
    return read_manifest(out).index(split)


def image(out: Path, row: Any, split: str = "train") -> Image.Image:
    """The picture of a row of the index."""
    tar = read_manifest(out).shard_paths(split)[row["shard"]].read_bytes()
    return Image.open(io.BytesIO(tar[row["offset"] : row["offset"] + row["length"]]))


def test_what_is_left_out_lies_in_quarantine_with_its_row(utkface: Path, tmp_path: Path) -> None:
    (utkface / "1_0_0_20170109000000001.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    (utkface / "zz wrong name.jpg").write_bytes(b"whatever")
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    with (tmp_path / "out" / "quarantine" / "quarantine.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(row["row"], row["source"]) for row in listed] == [
        ("0", "1_0_0_20170109000000001.jpg"),
        ("41", "zz wrong name.jpg"),
    ]
    assert [row["reason"] for row in listed] == ["it is not an image", "its name is not age_gender_race_time"]
    copies = [(tmp_path / "out" / "quarantine" / row["copy"]).read_bytes() for row in listed]
    assert copies == [b"\xff\xd8\xff half a picture", b"whatever"]
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert "2 images left out" in summary
    assert "1: its name is not age_gender_race_time" in summary


def test_a_decompression_bomb_is_left_out_undecoded(utkface: Path, tmp_path: Path) -> None:
    Image.new("1", (8_000, 7_000)).save(utkface / "1_0_0_20170109000000001.png")
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    assert "8000x7000 pixels" in (tmp_path / "out" / "quarantine" / "quarantine.csv").read_text()


def test_without_decoding_only_the_first_bytes_are_looked_at(utkface: Path, tmp_path: Path) -> None:
    (utkface / "1_0_0_20170109000000001.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    (utkface / "2_0_0_20170109000000002.jpg").write_bytes(b"")
    (utkface / "3_0_0_20170109000000003.jpg").write_bytes(b"text")
    pack(Utkface(images=utkface, out=tmp_path / "out", decode=False, val=0, test=0))
    assert len(rows(tmp_path / "out")) == 41
    assert not rows(tmp_path / "out")["appearance"].any()
    assert read_manifest(tmp_path / "out").quarantined == 2


def test_the_index_has_the_hash_of_every_image(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=0))
    for row in rows(tmp_path / "out"):
        encoded = next(utkface.glob(f"{row['key'].decode()}.*")).read_bytes()
        assert row["content"] == xxhash.xxh3_64(encoded).intdigest()
        assert row["appearance"] != 0


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
    assert rows(tmp_path / "as-is")["appearance"] == rows(tmp_path / "anew")["appearance"]


def test_equal_balance_takes_as_many_women_as_men_in_each_split(tmp_path: Path) -> None:
    for number in range(60):
        gender = "F" if number % 3 == 0 else "M"
        save(tmp_path / "images" / f"{number // 2:06d}_{number % 2:02d}{gender}30.JPG", picture(number))
    pack(Morph(images=tmp_path / "images", out=tmp_path / "out", val=0.3, test=0, balance="equal"))
    manifest = read_manifest(tmp_path / "out")
    for split in manifest.splits.values():
        assert split.counts["female"] == split.counts["male"] > 0
    assert manifest.options["balance"] == "equal"
    assert "left out for as many women as men" in (tmp_path / "out" / "summary.txt").read_text()


def test_images_can_stay_in_the_order_of_the_source(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", order="source"))
    for name in read_manifest(tmp_path / "out").splits:
        numbers = rows(tmp_path / "out", name)["row"].tolist()
        assert numbers == sorted(numbers)
    pack(Utkface(images=utkface, out=tmp_path / "shuffled"))
    assert rows(tmp_path / "shuffled")["row"].tolist() != sorted(rows(tmp_path / "shuffled")["row"].tolist())


def test_copies_that_are_labelled_female_and_male_are_reported_and_can_be_dropped(
    utkface: Path, tmp_path: Path
) -> None:
    man = next(path for path in sorted(utkface.iterdir()) if path.name.split("_")[1] == "0")
    (utkface / "77_1_0_20180101000000000.jpg").write_bytes(man.read_bytes())
    pack(Utkface(images=utkface, out=tmp_path / "kept"))
    pack(Utkface(images=utkface, out=tmp_path / "dropped", contradictions="drop"))
    assert "2 images of 1 pictures are labelled female and male" in (tmp_path / "kept" / "summary.txt").read_text()
    assert [sum(s.samples for s in read_manifest(tmp_path / o).splits.values()) for o in ("kept", "dropped")] == [
        41,
        39,
    ]
    for out in ("kept", "dropped"):
        with (tmp_path / out / "contradictions.csv").open(newline="") as file:
            found = {(row["source"], row["gender"]) for row in csv.DictReader(file)}
        assert found == {(man.name, "male"), ("77_1_0_20180101000000000.jpg", "female")}


def test_look_alikes_may_be_dealt_to_different_splits_on_request(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number in range(20):
        save(images / f"30_0_0_20170109{number:06d}000.png", picture(0), pnginfo=text(f"copy {number}"))
    for out, linked in (("linked", True), ("loose", False)):
        pack(Utkface(images=images, out=tmp_path / out, val=0.5, test=0, near_duplicates=linked))
    assert [len(read_manifest(tmp_path / out).splits) for out in ("linked", "loose")] == [1, 2]


def test_a_name_that_is_no_utf8_is_left_out(utkface: Path, tmp_path: Path) -> None:
    whole = next(utkface.iterdir()).read_bytes()
    (utkface / os.fsdecode(b"30_0_0_20170109000000001 M\xfcller.jpg")).write_bytes(whole)
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    assert read_manifest(tmp_path / "out").quarantined == 1
    listed = (tmp_path / "out" / "quarantine" / "quarantine.csv").read_text()
    assert "M\\udcfcller.jpg,its name is not UTF-8," in listed
    assert "not UTF-8" in (tmp_path / "out" / "summary.txt").read_text()


def test_names_that_give_the_same_key_are_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("a b.png", "a-b.png", "a.b.png", "a.c.png", "-.png")):
        save(tmp_path / "images" / "male" / name, picture(number))
    pack(Folders(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0))
    keys = {key.decode() for key in rows(tmp_path / "out")["key"]}
    assert len(keys) == 5
    assert {key.partition("+")[0] for key in keys} == {"male-a-b", "male-a", "male"}


def test_a_sample_takes_no_more_than_its_blocks_in_the_tar(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", val=0, test=0))
    split = read_manifest(tmp_path / "out").splits["train"]
    lengths = rows(tmp_path / "out")["length"].astype(int)
    padded = (-(-lengths // 512) * 512).sum()
    assert split.shards[0].bytes == padded + 3 * 512 * len(lengths) + 1024


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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resize": 0}, "--resize 0"),
        ({"quality": 100}, "--quality 100"),
        ({"shard_mb": 0}, "must be positive"),
        ({"workers": 0}, "must be positive"),
        ({"dry_run": True, "task": "1/2"}, "without --task"),
    ],
)
def test_options_that_cannot_work_are_refused(
    utkface: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        pack(Utkface(images=utkface, out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_real_faces_are_split_by_duplicate_group(real_faces: Path, tmp_path: Path) -> None:
    labels = real_faces.parent / "labels.csv"
    pack(Utkface(images=real_faces, out=tmp_path / "out", val=0.2, test=0))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.quarantined == 3
    with labels.open(newline="") as file:
        group = {row["file"].split(".")[0].strip(): row["dup_group"] for row in csv.DictReader(file)}
    sides = [
        {group[key.decode()] for key in manifest.index(name)["key"] if key.decode() in group}
        for name in ("train", "val")
    ]
    assert sum(map(len, sides)) > 11_000
    assert not sides[0] & sides[1]
