from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from hpcgender.commands.show_batch import ShowBatchConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.data.augment import Draws
from hpcgender.data.config import BatchConfig
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.loader import Loader
from hpcgender.data.packs import Pack
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from hpcgender.show_batch import magnification, show_batch
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest

SIZE = 40
BATCH = ("--batch-size", 12, "--image-size", SIZE, "--augment", "degraded", "--seed", 3)
Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `show-batch` and returns its list as read from JSON, and the sheet's pixels."""

    def show(*arguments: object) -> tuple[list[dict[str, Any]], Pixels]:
        out = tmp_path / "sheet.png"
        printed = text(capsys, *arguments, "--out", out, "--json")
        return json.loads(printed), np.asarray(Image.open(out))

    return show


def text(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `show-batch` prints."""
    show_batch(parse_options(ShowBatchConfig, "hpcgender show-batch", [str(argument) for argument in arguments]))
    return capsys.readouterr().out


def batch_of(config: BatchConfig, step: int, split: str = "train") -> tuple[list[int], Pixels]:
    """The samples and pixels of the global batch that a network gets `step` steps after the start."""
    manifest = read_manifest(config.data)
    ranks = Ranks(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
    loader: Loader
    if split == "train":
        loader = TrainingLoader(config, [Pack(manifest)], ranks)
    else:
        loader = EvaluationLoader(
            config, manifest, split, batch_size=config.batch_size, image_size=config.image_size, ranks=ranks
        )
    with closing(loader), closing(loader.epoch(*divmod(step, len(loader)))) as batches:
        batch = next(batches)
        return batch.samples.tolist(), to_pixels(batch.images).permute(0, 2, 3, 1).cpu().numpy()


def places(sheet: Pixels, image: Pixels) -> list[tuple[int, int]]:
    """Where on a sheet the image is, every pixel of it magnified: its upper left corners."""
    factor = magnification(len(image))
    picture = image.repeat(factor, axis=0).repeat(factor, axis=1)
    side = len(picture)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (side, side), axis=(0, 1))
    corners = (windows[..., 0, 0] == picture[0, 0]) & (windows[..., -1, -1] == picture[-1, -1])
    found = np.argwhere(corners.all(-1)).tolist()
    return [(y, x) for y, x in found if np.array_equal(sheet[y : y + side, x : x + side], picture)]


def test_the_sheet_has_the_pixels_of_the_batch_in_its_order(show: Any, shards: Path) -> None:
    config = BatchConfig(data=shards, batch_size=12, image_size=SIZE, augment="degraded", seed=3)
    for step in (0, 50):  # of the first epoch, and of a later one
        samples, images = batch_of(config, step)
        listed, sheet = show("--data", shards, *BATCH, "--step", step)
        assert [image["sample"] for image in listed] == samples
        corners = [place for image in images for place in places(sheet, image)]
        assert len(corners) == 12
        assert corners == sorted(corners)


def test_a_rank_is_shown_its_part_of_the_whole_batch(show: Any, shards: Path) -> None:
    whole, _ = show("--data", shards, *BATCH, "--step", 7)
    _, images = batch_of(BatchConfig(data=shards, batch_size=12, image_size=SIZE, augment="degraded", seed=3), 7)
    for world in (2, 4):
        for rank in range(world):
            listed, sheet = show("--data", shards, *BATCH, "--step", 7, "--rank", rank, "--world", world)
            assert listed == whole[rank::world]
            on_it = [bool(places(sheet, image)) for image in images]
            assert on_it == [place % world == rank for place in range(12)]


def write_config(run: Path, trained: TrainConfig, **other: Any) -> None:
    """The config.json of a run as training writes it, but for what is `other` in it."""
    content = {**trained.plain(), "manifest": read_manifest(trained.data).sha256, **other}
    (run / "config.json").write_text(json.dumps(content))


def test_the_options_of_a_run_decide_its_batches(show: Any, shards: Path, tmp_path: Path) -> None:
    trained = TrainConfig(
        data=shards, batch_size=6, image_size=48, augment="none", sampling="oversample", seed=11, last_batch="pad"
    )
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, trained)
    samples, images = batch_of(trained, 90)
    listed, sheet = show("--run", run, "--step", 90)
    assert [image["sample"] for image in listed] == samples
    assert all(places(sheet, image) for image in images)


def test_a_run_whose_data_set_was_moved(show: Any, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    trained = TrainConfig(data=shards, batch_size=6, image_size=48)
    write_config(run, trained, data=str(tmp_path / "gone"))
    moved = tmp_path / "moved"
    moved.symlink_to(shards)
    with pytest.raises(UserError, match=r"gone, the data of .*run, is not there: say with --data where it is"):
        show("--run", run)
    write_config(run, trained)
    expected = show("--run", run)[0]
    write_config(run, trained, data=str(tmp_path / "gone"))
    assert show("--run", run, "--data", moved)[0] == expected


def test_a_run_of_another_data_set(show: Any, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    trained = TrainConfig(data=shards, batch_size=6, image_size=48)
    write_config(run, trained)
    assert show("--run", run)[0]
    write_config(run, trained, manifest="other")
    with pytest.raises(UserError, match=r"run was trained on another data set than .*shards: say with --data"):
        show("--run", run)


def test_a_run_whose_augmentation_was_edited(show: Any, shards: Path, tmp_path: Path) -> None:
    augment = tmp_path / "own.toml"
    augment.write_text("flip = 0.5")
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, TrainConfig(data=shards, batch_size=6, image_size=48, augment=str(augment)))
    assert show("--run", run)[0]
    augment.write_text("flip = 0.4")
    with pytest.raises(UserError, match=r"own\.toml is not what it was when .*run was trained: put it back"):
        show("--run", run)


def test_another_split_is_shown_as_evaluation_sees_it(show: Any, shards: Path) -> None:
    config = BatchConfig(data=shards, batch_size=12, image_size=SIZE)
    samples, images = batch_of(config, 1, "val")
    listed, sheet = show("--data", shards, *BATCH, "--split", "val", "--step", 1)
    assert [image["sample"] for image in listed] == samples
    assert all(places(sheet, image) for image in images)
    assert all(image["augmentation"]["mirror"] == 0 for image in listed)


def test_the_list_says_what_the_index_says(show: Any, shards: Path) -> None:
    manifest = read_manifest(shards)
    index = manifest.index("train")
    for image in show("--data", shards, *BATCH)[0]:
        row = index[image["sample"]]
        assert image["key"] == row["key"].decode()
        assert image["gender"] == manifest.classes[row["gender"]]
        assert image["age"] == row["age"]
        assert image["subject"] == row["subject"].decode()
        assert shards / image["file"] == manifest.shard_paths("train")[row["shard"]]


def test_a_line_for_each_image_though_the_sheet_has_fewer(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "few.png"
    printed = text(capsys, "--data", shards, *BATCH, "--step", 30, "--images", 5, "--out", out)
    assert "the first 5 of 12 images; --images 12 draws all" in printed
    head, *lines = printed.split("\n\n")[1].splitlines()
    assert head.split() == ["place", "sample", "key", "gender", "file", "mirror", "colour", "sigma"]
    assert [int(line.split()[0]) for line in lines] == list(range(12))
    _, images = batch_of(BatchConfig(data=shards, batch_size=12, image_size=SIZE, augment="degraded", seed=3), 30)
    sheet = np.asarray(Image.open(out))
    assert [bool(places(sheet, image)) for image in images] == [True] * 5 + [False] * 7


def test_every_kind_of_augmentation_is_listed(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.toml").write_text(
        "crop_area = 0.5\nflip = 1.0\nrotation = 1.0\nbrightness = 0.2\nblur = 1.0\nerase = 1.0"
    )
    augment = ("--augment", tmp_path / "all.toml", "--image-size", SIZE, "--batch-size", 12)
    printed = text(capsys, "--data", shards, *augment, "--out", tmp_path / "all.png")
    _, table, meanings, _ = printed.split("\n\n")
    names = [field.name for field in fields(Draws)]
    assert table.splitlines()[0].split()[5:] == names
    assert [line.partition(":")[0] for line in meanings.splitlines()] == names


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_does_not_decode(show: Any, shards: Path, tmp_path: Path, split: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    good, _ = show("--data", copy, *BATCH, "--split", split)
    bad = good.pop(4)
    with (copy / bad["file"]).open("r+b") as file:
        file.seek(int(read_manifest(copy).index(split)[bad["sample"]]["offset"]))
        file.write(b"garbage")
    listed, _ = show("--data", copy, *BATCH, "--split", split)
    if split == "train":  # another one is in its place
        instead = listed.pop(4)
        assert instead["place"] == 4
        assert instead["sample"] != bad["sample"]
    assert listed == good


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rank", 8, "--world", 8), "--rank 8: --world 8 has ranks 0 to 7"),
        (("--rank", -1), "--rank -1"),
        (("--world", 0), "--world 0 must be positive"),
        (("--world", 7), "7 ranks"),
        (("--step", -1), "--step -1: steps are counted from 0"),
        (("--split", "tset"), "no split 'tset'"),
        (("--split", "val", "--step", 400), "--step 400: val has steps 0 to "),
        (("--split", "val", "--step", 2, "--rank", 11, "--world", 12), "rank 11 of 12 has no image at --step 2 of val"),
        (("--images", 0), "--images 0 must be positive"),
        (("--out", "batch.jpg"), "name it batch.png"),
        (("--out", "nowhere/batch.png"), "no directory nowhere to write batch.png into"),
        (("--out", "/proc/batch.png"), "cannot write into /proc"),
        (("--out", "directory.png"), "directory.png is a directory"),
        (("--data", "nowhere"), "no manifest.json in nowhere"),
        (("--augment", "lite"), "'lite'"),
        (("--run", "nowhere"), "no config.json in nowhere: name the directory of a run"),
        (("--run", "old"), "old/config.json has no sampling: it may be another version's"),
        (("--run", "damaged"), "damaged/config.json is damaged"),
        (("--run", "run", "--seed", 4), "--seed 4 contradicts run, which has 3"),
        (("--run", "run", "--augment", "none"), "--augment none contradicts run, which has light"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_one_line(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = {**TrainConfig(data=shards, batch_size=12, seed=3).plain(), "manifest": read_manifest(shards).sha256}
    runs = {"run": plain, "old": {name: value for name, value in plain.items() if name != "sampling"}}
    for name, content in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"seed": 3')
    (tmp_path / "directory.png").mkdir()
    batch = () if "--run" in arguments else ("--batch-size", 12)
    with pytest.raises(UserError) as error:
        text(capsys, *(() if "--data" in arguments else ("--data", shards)), *batch, *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.png/*")) + [path for path in tmp_path.glob("*.png") if path.is_file()]
