"""What lies in a directory is packed, refused or counted: never passed over without a word."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.image_files import ImageFiles
from shard_tools.sources.table import Table
from shard_tools.sources.utkface import Utkface
from shard_tools.sources.values import split_of
from tests.shard_tools.pictures import picture, save


def faces(directory: Path, count: int, seed: int = 0) -> None:
    for number in range(count):
        save(directory / f"{seed}-{number:02d}.jpg", picture(100 * seed + number))


def counts(out: Path) -> dict[str, dict[str, int]]:
    return {name: split.counts for name, split in read_manifest(out).splits.items()}


def folders(tmp_path: Path, **options: object) -> Folders:
    return Folders(images=tmp_path / "k", out=tmp_path / "out", workers=1, **options)  # type: ignore[arg-type]


def found(root: Path) -> ImageFiles:
    return ImageFiles(root, root / "out")


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    faces(tmp_path / "k" / "female", 2)
    faces(tmp_path / "elsewhere" / "deep", 2, 1)
    (tmp_path / "k" / "male").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "k" / "all").symlink_to(tmp_path / "k")
    (tmp_path / "k" / "outside").symlink_to(tmp_path)
    (tmp_path / "k" / "female" / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "deep" / "1-00.jpg")
    (tmp_path / "k" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "k" / "itself").symlink_to("itself")
    listed = found(tmp_path / "k")
    assert listed.names == [
        *("female/0-00.jpg", "female/0-01.jpg", "female/linked.jpg", "male/deep/1-00.jpg", "male/deep/1-01.jpg"),
    ]
    line = listed.not_taken()
    assert "2 dangling links (gone.jpg, itself)" in line
    assert "3 links to a directory around them (all, male/deep/up, outside)" in line
    for name in ("itself", "all", "outside"):
        (tmp_path / "k" / name).unlink()
    line = found(tmp_path / "k").not_taken()
    assert "1 dangling link (gone.jpg), 1 link to a directory around it (male/deep/up)" in line


def test_an_image_is_one_whatever_its_suffix(tmp_path: Path) -> None:
    faces(tmp_path / "k", 7)
    for number, suffix in enumerate((".jfif", ".JPE", ".JPG~", "", ".jpeg_large", ".jpg", ".jpg.bak")):
        (tmp_path / "k" / f"0-{number:02d}.jpg").rename(tmp_path / "k" / f"{number}{suffix}")
    for name in ("labels.csv", "a.tif", "b.tif", "README", ".DS_Store", "._1.jpg"):
        (tmp_path / "k" / name).write_text("II*")
    save(tmp_path / "k" / ".ipynb_checkpoints" / "1-checkpoint.jpg", picture(0))
    save(tmp_path / "k" / "__MACOSX" / "1.jpg", picture(0))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "k" / "socket"))
        listed = found(tmp_path / "k")
    assert len(listed.names) == 7
    assert listed.not_taken() == (
        f"not taken below {tmp_path / 'k'}: 4 files of kinds that are not packed "
        "(2 .tif, 1 without suffix, 1 .csv), "
        "4 hidden (.DS_Store, ._1.jpg, .ipynb_checkpoints, ...), 1 neither file nor directory (socket)"
    )


def test_what_is_packed_is_not_listed_again(tmp_path: Path) -> None:
    faces(tmp_path / "k", 2)
    save(tmp_path / "k" / "out" / "quarantine" / "1.jpg", picture(9))
    assert len(found(tmp_path / "k").names) == 2


def test_the_line_of_what_was_not_taken_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces(tmp_path / "k" / "female", 3)
    faces(tmp_path / "k" / "male", 3, 1)
    (tmp_path / "k" / "male" / "x.gif").write_bytes(b"GIF89a")
    pack(folders(tmp_path, val=0, test=0))
    line = f"not taken below {tmp_path / 'k'}: 1 file of a kind that is not packed (1 .gif)\n"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "out" / "summary.txt").read_text()
    shutil.rmtree(tmp_path / "k")
    (tmp_path / "k" / "female").mkdir(parents=True)
    (tmp_path / "k" / "female" / "x.heic").write_bytes(b"xxxxftypheic")
    with pytest.raises(
        UserError, match=r"no images in .*k: not taken .*: 1 file of a kind that is not packed \(1 \.heic\)"
    ):
        pack(Folders(images=tmp_path / "k", out=tmp_path / "again"))


@pytest.mark.parametrize("name", ["male", "male/1-00.jpg", "male/1-00.jfif_large"])
def test_what_may_not_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    faces(tmp_path / "k" / "female", 2)
    faces(tmp_path / "k" / "male", 2, 1)
    (tmp_path / "k" / "male" / "1-01.jpg").rename(tmp_path / "k" / "male" / "1-00.jfif_large")
    (tmp_path / "k" / name).chmod(0)
    command = [
        sys.executable,
        "-m",
        "shard_tools",
        "pack",
        "folders",
        "--images",
        "k",
        "--out",
        "out",
        "--workers",
        "1",
    ]
    powers = "-dac_override,-dac_read_search"  # of root, who may read everything else
    root = ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"] if os.geteuid() == 0 else []
    done = subprocess.run([*root, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"cannot read k/{name}: Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("training_set", "train"), ("Train", "train"), ("train_images", "train"), ("train1", "train")),
        *(("dev", "val"), ("validate", "val"), ("val_set", "val"), ("valid", "val"), ("validation-data", "val")),
        *(
            ("test_set", "test"),
            ("Testing", "test"),
            ("images_test", "test"),
            ("testset", "test"),
            (" test_02 ", "test"),
        ),
        *(("Val_Ackerman", ""), ("pretrain", ""), ("contest", ""), ("extra", ""), ("", "")),
    ],
)
def test_words_that_name_a_split(name: str, split: str) -> None:
    assert split_of(name) == split


def test_class_directories_have_many_names(tmp_path: Path) -> None:
    for number, name in enumerate(("Females", "Male Faces", "Women", "male/f", "female/m", "images_men")):
        faces(tmp_path / "k" / name, 2, number)
    pack(folders(tmp_path, val=0, test=0))
    assert counts(tmp_path / "out") == {"train": {"female": 6, "male": 6}}


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (("0", "1"), {}, r"no class directories .*: 0 \(2 images\), 1 \(2 images\); .*--female 0 --male 1"),
        (("female", "hommes"), {}, r"no directory of male images .*: hommes \(2 images\)"),
        (("0", "1"), {"male": ("1",), "female": ("2",)}, "called 2, which --female names"),
        (("0", "1"), {"male": ("1",), "female": ("1",)}, "both name 1: which is it"),
        (("Men", "Women"), {"male": ("women",), "female": ("Men",)}, "'Men' is a word for male: .* as --female"),
        (("faces_men", "0"), {"female": ("faces_men",), "male": ("0",)}, "'faces_men' is a word for male: .*--female"),
        (("male", "female"), {"splits": {"extra": "dev"}}, "it must be train, val or test"),
        (("train/male", "Val/female", "extra/male"), {}, r"2 images are in no split, others are: extra \(2 images\)"),
        (("k/train/male", "k/female", "male"), {}, r"4 images .*: k/female \(2 images\), the top|male"),
        (("train/male", "a\n\x1b[31m/female"), {}, "others are: a\ufffd\ufffd\\[31m \\(2 images\\)"),
        (("my_test/male", "my_train/female"), {}, r"may be splits: my_test \(2 images\), my_train .*--splits"),
        (("train/male", "train/female/test"), {}, "train/female/test is in directories of two splits"),
    ],
)
def test_directories_that_are_not_understood_are_refused(
    tmp_path: Path, names: tuple[str, ...], options: dict[str, object], says: str
) -> None:
    for number, name in enumerate(names):
        faces(tmp_path / "k" / name, 2, number)
    with pytest.raises(UserError, match=says):
        pack(folders(tmp_path, **options))
    assert not (tmp_path / "out").exists()


def test_directories_have_the_meaning_that_is_stated(tmp_path: Path) -> None:
    for number, name in enumerate(("Fit/1", "Fit/0", "train/test/0", "train/test/1")):
        faces(tmp_path / "k" / name, 2 + number, number)
    stated = {"male": ("1",), "female": ("0",), "splits": {"fit": "train", "test": "test"}}
    pack(folders(tmp_path, val=0, **stated))
    assert counts(tmp_path / "out") == {"train": {"female": 3, "male": 2}, "test": {"female": 4, "male": 5}}
    assert "1, male, man" in read_manifest(tmp_path / "out").convention


def packed_with_own(tmp_path: Path, splits: tuple[str, ...], **options: object) -> dict[str, int]:
    for number, split in enumerate(splits):
        faces(tmp_path / "k" / split / "male", 20, 2 * number)
        faces(tmp_path / "k" / split / "female", 20, 2 * number + 1)
    pack(folders(tmp_path, **options))
    return {name: split.samples for name, split in read_manifest(tmp_path / "out").splits.items()}


def test_validation_is_taken_from_training_where_the_source_has_none(tmp_path: Path) -> None:
    assert packed_with_own(tmp_path, ("train", "test")) == {"train": 36, "val": 4, "test": 40}
    assert "val: taken from the source's own train, 0.1" in (tmp_path / "out" / "summary.txt").read_text()
    sources = [row["key"].decode() for row in read_manifest(tmp_path / "out").index("val")]
    assert all(source.startswith("train-") for source in sources)


@pytest.mark.parametrize(
    ("splits", "options", "samples"),
    [
        (("train",), {}, {"train": 36, "val": 4}),
        (("train",), {"val": 0.2, "test": 0.3}, {"train": 20, "val": 8, "test": 12}),
        (("train", "val"), {"test": 0.5}, {"train": 20, "val": 40, "test": 20}),
        (("train", "test"), {"val": 0}, {"train": 40, "test": 40}),
        (("test",), {}, {"test": 40}),
    ],
)
def test_fractions_work_within_the_sources_own_splits(
    tmp_path: Path, splits: tuple[str, ...], options: dict[str, object], samples: dict[str, int]
) -> None:
    assert packed_with_own(tmp_path, splits, **options) == samples


@pytest.mark.parametrize(
    ("splits", "options", "says"),
    [
        (("train", "val"), {"val": 0.1}, "has a split val of its own, 40 images: leave --val 0.1 out"),
        (("test",), {"val": 0.1}, "the source has none of them, but 40 in test: leave it out"),
    ],
)
def test_fractions_that_can_do_nothing_are_refused(
    tmp_path: Path, splits: tuple[str, ...], options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        packed_with_own(tmp_path, splits, **options)
    assert not (tmp_path / "out").exists()


def test_a_fraction_alone_leaves_the_other_what_there_is(utkface: Path, tmp_path: Path) -> None:
    pack(Utkface(images=utkface, out=tmp_path / "out", test=1))
    assert {name: split.samples for name, split in read_manifest(tmp_path / "out").splits.items()} == {"test": 40}


def test_one_image_in_each_split_is_counted_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("train/male", "val/female", "test/male")):
        faces(tmp_path / "k" / name, 1, seed)
    (tmp_path / "k" / "train" / "male" / "broken.jpg").write_bytes(b"no image")
    pack(folders(tmp_path))
    printed = capsys.readouterr().out
    for line in (
        "train: 1 image (0 female, 1 male) in 1 shard, 0.0 MB",
        "val: 1 image (1 female, 0 male) in 1 shard, 0.0 MB",
        "test: 1 image (0 female, 1 male) in 1 shard, 0.0 MB",
        "1 image left out, listed in quarantine/quarantine.csv:",
    ):
        assert f"{line}\n" in printed


def test_a_class_that_is_missing_or_rare_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces(tmp_path / "k" / "train" / "male", 25)
    faces(tmp_path / "k" / "test" / "male", 2, 1)
    faces(tmp_path / "k" / "train" / "female", 2, 2)
    pack(folders(tmp_path, val=0))
    printed = capsys.readouterr().out
    assert "WARNING: female: 2 of 29 images with a gender: is that all" in printed
    assert "WARNING: test has no female images\n" in printed
    shutil.rmtree(tmp_path / "k" / "train" / "female")
    pack(Folders(images=tmp_path / "k", out=tmp_path / "alone"))
    assert (
        "WARNING: female: none of 27 images with a gender: is that all"
        in (tmp_path / "alone" / "summary.txt").read_text()
    )
    with pytest.raises(UserError, match="no image is female: --balance equal would leave none"):
        pack(Folders(images=tmp_path / "k", out=tmp_path / "balanced", balance="equal"))
    assert not (tmp_path / "balanced").exists()


def test_splits_of_the_source_without_training_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces(tmp_path / "k" / "female" / "Val", 2)
    faces(tmp_path / "k" / "male" / "Dev", 2, 1)
    pack(folders(tmp_path))
    says = "WARNING: no image is in train: the source's own splits have 4 in val; if that is wrong, rename"
    assert says in capsys.readouterr().out
    assert says in (tmp_path / "out" / "summary.txt").read_text()


def test_a_split_that_gets_no_image_is_said(utkface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(utkface.iterdir())[4:]:
        path.unlink()
    pack(Utkface(images=utkface, out=tmp_path / "out"))
    assert "WARNING: no image is in test: of 4 images, 0.1 is too little, see --test" in capsys.readouterr().out


def test_rows_without_a_split_beside_others_do_not_become_training_data(tmp_path: Path) -> None:
    faces(tmp_path / "k", 6)
    rows = [f"0-{number:02d}.jpg,{'FM'[number % 2]},{split}" for number, split in enumerate(("Train",) * 4 + ("", "x"))]
    (tmp_path / "t.csv").write_text("\n".join(["image,gender,part", *rows]))
    options = {"gender": "gender", "split": "part", "table": (tmp_path / "t.csv",), "workers": 1}
    with pytest.raises(UserError, match=r"1 image has no split, .*\(4 in train\): .* --splits '' train"):
        pack(Table(images=tmp_path / "k", out=tmp_path / "out", **options))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    stated = {"": "test", "x": "val"}
    pack(Table(images=tmp_path / "k", out=tmp_path / "out", splits=stated, **options))  # type: ignore[arg-type]
    assert {n: s.samples for n, s in read_manifest(tmp_path / "out").splits.items()} == {
        "train": 4,
        "val": 1,
        "test": 1,
    }
