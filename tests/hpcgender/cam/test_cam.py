"""The command on drawn faces: what it writes, on any number of processes, and however often it is stopped."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgender.cam.results import read_cam
from hpcgender.checkpoint import load_trained, save_checkpoint
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES, read_manifest
from tests.conftest import REPOSITORY, Run

BATCH = 16
OVERLAYS, DELETION = 3, 40
OPTIONS = ("--split", "test", "--batch-size", BATCH, "--overlays", OVERLAYS, "--deletion", DELETION)
KILLED = -9
NEVER = "SIGTERM maps 0"

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, run: Run, faces: Path) -> Path:
    """All drawn faces as one test split; one of them does not decode."""
    out = tmp_path_factory.mktemp("cam") / "faces"
    options = ("--images", faces, "--out", out, "--val", 0, "--test", 1)
    packed = run("shard_tools", "pack", "morph", *options)
    assert packed.returncode == 0, packed.stderr
    manifest = read_manifest(out)
    row = manifest.index("test")[37]
    with manifest.shard_paths("test")[row["shard"]].open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"garbage" * 20)
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the checkpoint of a network that learnt nothing: maps need no truth to be exact."""

    def make(name: str, **options: Any) -> Path:
        torch.manual_seed(0)
        model = create(ModelConfig(model=name, **options), 2)
        path = tmp_path_factory.mktemp(name) / "best.pt"
        config = TrainConfig(model=name, image_size=32, **options).plain()
        about = {"classes": CLASSES, "config": config, "epoch": 3, "step": 30, "revision": "abc", "manifest": ""}
        about |= {"val_manifest": "", "leaks": [], "crop": None}
        save_checkpoint(path, {"model": model.state_dict(), **about})
        return path

    return make


@pytest.fixture(scope="module")
def resnet(checkpoint: Make) -> Path:
    return checkpoint("se_resnet18", stem="small")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run: Run, resnet: Path, packed: Path) -> Path:
    """Heat maps made by one process, without a pause."""
    out = tmp_path_factory.mktemp("cams") / "whole"
    done = interrupted(run, "", resnet, packed, out)
    assert done.returncode == 0, done.stderr
    assert "1 of 320 images failed to decode" in done.stdout
    return out


def interrupted(run: Run, signal: str, checkpoint: Path, data: Path, out: Path, processes: int = 1) -> Any:
    """Runs the command, keeping its progress after each batch, with a signal to each process: `SIGTERM maps 3`."""
    command = ("-m", "tests.hpcgender.inference.interrupted", *(signal or NEVER).split(), "cam")
    options = ("--checkpoint", checkpoint, "--data", data, "--out", out, "--max-bad", 0.1, *OPTIONS)
    if processes == 1:
        return run(*command[1:], *options, cwd=REPOSITORY)
    return run("jobs.agent", f"--nproc-per-node={processes}", *command, *options, cwd=REPOSITORY)


def same(left: Path, right: Path) -> None:
    """Asserts that two results are the same to the last bit, but for when and how they were made."""
    one, other = read_cam(left), read_cam(right)
    assert replace(one, run=other.run, arrays={}) == replace(other, arrays={})
    names = [path.relative_to(left) for path in left.rglob("*") if path.is_file() and path.parent.name != "logs"]
    names.remove(Path("work/lock"))
    assert len(names) > 20
    for name in names:
        if name.name != "cam.json":
            assert (right / name).read_bytes() == (left / name).read_bytes(), name


def test_what_is_written(whole: Path, resnet: Path, packed: Path) -> None:
    found = read_cam(whole)
    index = read_manifest(packed).index("test")
    maps = np.concatenate([np.load(path) for path in sorted(whole.glob("maps/maps-*.npy"))])
    keys = np.concatenate([np.load(path) for path in sorted(whole.glob("maps/keys-*.npy"))])
    log_odds = np.concatenate([np.load(path) for path in sorted(whole.glob("maps/log_odds-*.npy"))])
    np.testing.assert_array_equal(keys, index["key"])
    assert maps.shape == (320, 4, 4)
    assert np.flatnonzero(np.isnan(maps).any((1, 2))).tolist() == [37]
    assert (found.method, found.cells, found.data.images, found.data.left_out) == ("cam", (4, 4), 320, 1)
    there = ~np.isnan(log_odds)
    for code, gender in enumerate(CLASSES):
        of = there & (index["gender"] == code)
        (average,) = (average for average in found.averages if average.name == gender)
        assert average.images == of.sum()
        np.testing.assert_allclose(found.arrays[f"{gender}/mean"], maps[of].mean(0, dtype=np.float64), rtol=1e-12)
        wrong = of & ((log_odds > 0) != (code == 1))
        assert sum(a.images for a in found.averages if a.name == f"{gender} wrong") == wrong.sum()
    difference = found.arrays["male/mean"] - found.arrays["female/mean"]
    np.testing.assert_array_equal(found.arrays["male minus female/difference"], difference)
    assert {average.group for average in found.averages} == {"", *found.data.groups}
    assert found.deletion
    assert found.deletion.images == DELETION
    assert found.checkpoint.model == "se_resnet18"

    rows = list(csv.DictReader((whole / "maps.csv").read_text().splitlines()))
    assert [row["key"] for row in rows] == [key.decode() for key in index["key"]]
    np.testing.assert_array_equal(np.load(whole / "maps" / rows[100]["shard"])[int(rows[100]["row"])], maps[100])
    assert [row["key"] for row in rows if not row["prediction"]] == [index["key"][37].decode()]
    model = load_trained(resnet, torch.device("cpu")).model
    assert float(rows[0]["log_odds"]) == pytest.approx(maps[0].mean() + bias(model), abs=1e-5)
    for name in ("sheet.png", "averages.png", "differences.png", "deletion.png"):
        with Image.open(whole / name) as picture:
            assert picture.width > 600
    overlays = list((whole / "overlays").glob("*.jpg"))
    assert len(overlays) == OVERLAYS
    with Image.open(overlays[0]) as picture:
        assert picture.size == (224, 224)


def bias(model: torch.nn.Module) -> float:
    female, male = model.get_parameter("fc.bias").tolist()
    return float(male - female)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bits(
    processes: int, run: Run, resnet: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    done = interrupted(run, "", resnet, packed, tmp_path / "out", processes)
    assert done.returncode == 0, done.stderr
    same(whole, tmp_path / "out")
    assert read_cam(tmp_path / "out").run.world_size == processes


def test_killed_and_stopped_it_goes_on_to_the_same_bits(
    run: Run, resnet: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = interrupted(run, "SIGKILL maps 6", resnet, packed, out)
    assert killed.returncode == KILLED
    first = out / "maps" / "maps-000000.npy"
    written = first.stat().st_mtime_ns
    stopped = interrupted(run, "SIGTERM maps 3", resnet, packed, out, processes=2)
    assert stopped.returncode == 99, stopped.stderr
    assert "resuming maps: 80 of 320 images done" in stopped.stdout
    assert "stopped by SIGTERM, the work so far is saved" in stopped.stdout
    assert not (out / "cam.json").exists()
    killed = interrupted(run, "SIGKILL deletion 2", resnet, packed, out)
    assert killed.returncode == KILLED, killed.stderr
    done = interrupted(run, "", resnet, packed, out, processes=3)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == written
    same(whole, out)


def test_again_only_what_is_asked_for_anew_is_done(
    run: Run, checkpoint: Make, resnet: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    index = read_manifest(packed).index("test")
    key = index["key"][5].decode()
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "names.txt").write_text("0 upper half\n1 lower half\n")
    for name in index["key"][:50]:
        Image.fromarray(np.repeat([0, 1], 24).astype(np.uint8)[:, None].repeat(48, 1)).save(
            masks / f"{name.decode()}.png"
        )
    # Of a process that would be killed by its first batch.
    base = ("--checkpoint", resnet, "--data", packed, "--out", out, "--max-bad", 0.1, *OPTIONS[:4])
    program = ("tests.hpcgender.inference.interrupted", "SIGKILL", "maps", 1, "cam", *base)
    options = ("--keys", key, "--regions", masks, "--deletion", 0)
    done = run(*program, *options, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = read_cam(out)
    assert found.deletion is None
    assert not (out / "deletion.png").exists()
    assert [path.name for path in (out / "overlays").glob("*.jpg")] == [f"{key}.jpg"]
    assert found.masks == 49  # one of the 50 does not decode
    halves = [region for region in found.regions if region.average == "male"]
    assert [region.region for region in halves] == ["upper half", "lower half"]
    assert sum(region.share for region in halves) == pytest.approx(1)
    assert [region.area for region in halves] == [0.5, 0.5]
    assert len((out / "regions.csv").read_text().splitlines()) == 1 + len(found.regions)

    other = run(*program[:5], "--checkpoint", checkpoint("compact"), *base[2:], cwd=REPOSITORY)
    assert (other.returncode, other.stderr) == (
        2,
        f"hpcgender: {out} holds maps of another checkpoint: give another --out, or remove it\n",
    )
    assert (out / "cam.json").is_file()


def test_a_split_of_one_class(run: Run, checkpoint: Make, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "men").mkdir()
    for face in sorted(faces.glob("*M??.JPG"))[:10]:
        shutil.copy(face, tmp_path / "men")
    data = tmp_path / "packed"
    packed = run("shard_tools", "pack", "morph", "--images", tmp_path / "men", "--out", data, "--val", 0, "--test", 1)
    assert packed.returncode == 0, packed.stderr
    done = run("hpcgender", "cam", "--checkpoint", checkpoint("compact"), "--data", data, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = read_cam(tmp_path / "out")
    assert (found.method, found.cells) == ("cam", (2, 2))
    assert {average.gender for average in found.averages} == {"male"}
    assert all(average.small for average in found.averages)
    assert not {"gender", "gender in group"} & {difference.kind for difference in found.differences}
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 10_000


def test_maps_of_one_cell_have_no_deletion_check(run: Run, checkpoint: Make, packed: Path, tmp_path: Path) -> None:
    options = ("--checkpoint", checkpoint("resnet18"), "--data", packed, "--out", tmp_path / "out", "--max-bad", 0.1)
    done = run("hpcgender", "cam", *options)
    assert done.returncode == 0, done.stderr
    assert "heat maps of 1x1 cells do not show where the evidence is, and there is no deletion check" in done.stdout
    assert ": train with --output-stride 8 or a larger --image-size than " in done.stdout
    assert (read_cam(tmp_path / "out").cells, read_cam(tmp_path / "out").deletion) == ((1, 1), None)


def test_what_cannot_be_done_is_said(run: Run, checkpoint: Make, resnet: Path, packed: Path, tmp_path: Path) -> None:
    age = run("hpcgender", "cam", "--data", packed, "--checkpoint", checkpoint("compact", tasks=("age",)))
    assert age.returncode == 2
    assert "was not trained for gender" in age.stderr
    assert age.stderr.count("\n") == 1
    wrong: dict[str, dict[str, Any]] = {
        "no image nobody in test": {"keys": ("nobody",)},
        "ascending": {"fractions": (0.5, 0.1)},
        "at most 1": {"fractions": (1.5,)},
        "--deletion -1 must be at least 0": {"deletion": -1},
        "--examples 0 must be positive": {"examples": 0},
        "names.txt": {"regions": tmp_path},
    }
    for message, options in wrong.items():
        with pytest.raises(UserError, match=re.escape(message)):
            CamConfig(checkpoint=resnet, data=packed, **options).check()


def test_results_that_cannot_be_read(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no cam\.json"):
        read_cam(tmp_path)
    (tmp_path / "cam.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_cam(tmp_path)
    shutil.copy(whole / "cam.json", tmp_path)
    with pytest.raises(UserError, match=r"averages\.npz is damaged"):
        read_cam(tmp_path)
    (tmp_path / "cam.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="not of format"):
        read_cam(tmp_path)
