from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL.PngImagePlugin import PngInfo

from shard_tools.base.errors import UserError
from shard_tools.images import decoded
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.morph import Morph
from shard_tools.sources.utkface import Utkface
from tests.benchmarks.copies import CORRELATED, pattern
from tests.conftest import Run
from tests.shard_tools.pictures import digest, picture, rows, save


def text(comment: str) -> PngInfo:
    """Makes the file another one, and the picture not."""
    info = PngInfo()
    info.add_text("Comment", comment)
    return info


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


def test_dali_reads_the_shards(utkface: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    pack(Utkface(images=utkface, out=tmp_path / "out", shard_mb=0.02))
    manifest = read_manifest(tmp_path / "out")
    index, paths = manifest.index("train"), manifest.shard_paths("train")
    assert len(paths) > 1
    files: list[tuple[bytes, bytes]] = []
    for path in paths:
        with tarfile.open(path) as tar:
            contents = [file.read() for member in tar if (file := tar.extractfile(member))]
        files += zip(contents[::2], contents[1::2], strict=True)

    @pipeline_def(batch_size=len(index), num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def by_dali() -> object:
        idx = [str(path.with_suffix(".idx")) for path in paths]
        images, labels = fn.readers.webdataset(paths=[str(p) for p in paths], index_paths=idx, ext=["jpg", "json"])  # type: ignore[misc]
        return images, labels

    pipeline = by_dali()
    pipeline.build()
    images, labels = pipeline.run()
    assert [(bytes(images.at(i)), bytes(labels.at(i))) for i in range(len(index))] == files


def test_the_idx_is_what_dalis_own_tool_writes(utkface: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    tar = tmp_path / "out" / "train" / "train-000000.tar"
    wds2idx = Path(sys.executable).with_name("wds2idx")
    subprocess.run([wds2idx, tar, tmp_path / "expected.idx"], capture_output=True, check=True)
    assert tar.with_suffix(".idx").read_text() == (tmp_path / "expected.idx").read_text()


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["utkface", "--images", "missing"], "no directory missing"),
        (["utkface", "--images", "empty"], "no images in empty"),
        (["utkface", "--images", "wrong"], "none of 1 images can be used"),
        (["folders", "--images", "wrong"], "no class directories in wrong"),
        (["utkface", "--images", "wrong", "--val", "0.6", "--test", "0.5"], "--val 0.6 and --test 0.5: give fractions"),
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


def test_a_place_below_a_file_is_refused(utkface: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a person's notes")
    for out in ("file", "file/below"):
        with pytest.raises(UserError, match=f"{tmp_path}/file is no directory: give another one as --out"):
            pack(Utkface(images=utkface, out=tmp_path / out))
    assert (tmp_path / "file").read_text() == "a person's notes"


def test_real_faces_are_split_by_copies(real_faces: Path, tmp_path: Path) -> None:
    """All of equal bytes; of pictures whose rows alone look the same (`dup_group`), those of the same pixels."""
    pack(Utkface(images=real_faces, out=tmp_path / "out", val=0.2, test=0))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.quarantined == 3
    place, appearance = {}, {}
    for split in ("train", "val"):
        for row in manifest.index(split):
            place[row["key"].decode()], appearance[row["key"].decode()] = split, row["appearance"]
    groups: dict[str, list[tuple[str, Path, str]]] = defaultdict(list)
    with (real_faces.parent / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["file"].split(".")[0].strip()
            if key in place:
                groups[row["dup_group"]].append((key, real_faces / row["file"], row["md5"]))
    equal = same = found = 0
    for members in groups.values():
        for (key, path, md5), (other, other_path, other_md5) in combinations(members, 2):
            if md5 == other_md5:
                equal += 1
                assert place[key] == place[other]
            elif pattern(decoded(path.read_bytes())) @ pattern(decoded(other_path.read_bytes())) > CORRELATED:
                same += 1
                found += bool(appearance[key] == appearance[other])
                assert appearance[key] != appearance[other] or place[key] == place[other]
    assert equal > 90
    assert found > 0.35 * same > 20, (found, same)
