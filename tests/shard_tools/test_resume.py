"""A pack that is killed, refused its disk or dealt to tasks ends with the bytes of one that runs through."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from shard_tools import look, unfinished
from shard_tools.base.errors import UserError
from shard_tools.commands.finalize import FinalizeConfig
from shard_tools.manifest import read_manifest
from shard_tools.pack import finalize, pack
from shard_tools.sources import Record
from shard_tools.sources.folders import Folders
from tests.conftest import Run
from tests.shard_tools.pictures import digest

COUNT = 3500  # four chunks


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,500 small pictures in class directories, one of them damaged and one twice."""
    root = tmp_path_factory.mktemp("many")
    for name in ("female", "male"):
        (root / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (COUNT, 8, 8), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(root / ("female", "male")[number % 2] / f"{number:05d}.png", compress_level=0)
    (root / "male" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(root / "female" / "00000.png", root / "male" / "copy.png")
    return root


@pytest.fixture(scope="session")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What an uninterrupted pack writes, and how many seconds it takes as a command."""
    out = tmp_path_factory.mktemp("whole") / "out"
    start = time.monotonic()
    subprocess.run(command(many, out, 1), check=True, capture_output=True)
    return digest(out), time.monotonic() - start


def command(images: Path, out: Path, workers: int, *more: str) -> list[str]:
    arguments = ["--images", str(images), "--out", str(out), "--shard-mb", "0.5", "--workers", str(workers), *more]
    return [sys.executable, "-m", "shard_tools", "pack", "folders", *arguments]


def source(images: Path, out: Path, **options: object) -> Folders:
    return Folders(images=images, out=out, shard_mb=0.5, **options)  # type: ignore[arg-type]


def wait_until_gone(group: int) -> None:
    """Waits until no process of the group runs; fails if one outlives its parent."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a worker outlived the pack")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    many: Path, whole: tuple[dict[str, str], float], tmp_path: Path, seed: int, workers: int
) -> None:
    expected, seconds = whole
    draw = random.Random(f"{seed} {workers}")
    for _ in range(1 + seed % 2):
        process = subprocess.Popen(
            command(many, tmp_path / "out", workers),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(draw.uniform(0.15, 1) * seconds)
        if draw.random() < 0.5:
            process.kill()  # the parent alone, as the kernel does when memory runs out
        else:
            os.killpg(process.pid, signal.SIGKILL)  # all of it, as a scheduler does
        process.wait()
        wait_until_gone(process.pid)
    if not (tmp_path / "out" / "manifest.json").exists() or (tmp_path / "out" / ".packing").exists():
        done = subprocess.run(command(many, tmp_path / "out", workers), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "out") == expected


@dataclass(kw_only=True)
class Counting(Folders):
    """Counts what it reads, and is interrupted before it reads more than `limit` images."""

    limit: ClassVar[int] = 0
    reads: ClassVar[int] = 0

    def read(self, record: Record) -> bytes:
        Counting.reads += 1
        if Counting.reads > Counting.limit:
            raise KeyboardInterrupt
        return super().read(record)


def test_it_goes_on_where_it_was(many: Path, tmp_path: Path, whole: tuple[dict[str, str], float]) -> None:
    kept = {}
    for limit in (2 * look.CHUNK + 10, COUNT - look.CHUNK, 1 << 30):
        Counting.reads, Counting.limit = 0, limit
        try:
            pack(Counting(images=many, out=tmp_path / "out", shard_mb=0.5, workers=1))
        except KeyboardInterrupt:
            with pytest.raises(UserError, match="not packed to its end: give the same shard-tools command again"):
                read_manifest(tmp_path / "out")
            kept[limit] = len(list((tmp_path / "out").rglob("*.tar")))
            assert not (tmp_path / "out" / "manifest.json").exists()
    # First two chunks were looked at, then the others and some shards written, then the rest of these.
    assert [shards > 0 for shards in kept.values()] == [False, True]
    assert Counting.reads < COUNT
    shards = {
        name: value for name, value in digest(tmp_path / "out").items() if name.endswith((".tar", ".idx", ".npy"))
    }
    assert shards == {name: whole[0][name] for name in shards}
    assert len(shards) > 10


def test_other_options_do_not_go_on_with_it(many: Path, tmp_path: Path) -> None:
    Counting.reads, Counting.limit = 0, 10
    with pytest.raises(KeyboardInterrupt):
        pack(Counting(images=many, out=tmp_path / "out", workers=1))
    with pytest.raises(UserError, match="unfinished pack with another seed, val: give the same"):
        pack(Counting(images=many, out=tmp_path / "out", workers=1, seed=5, val=0.2))
    with pytest.raises(UserError, match="unfinished pack with another source"):
        pack(source(many, tmp_path / "out"))


def test_a_pack_killed_at_its_end_is_tidied(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(source(many, tmp_path / "out"))
    before = digest(tmp_path / "out")
    (tmp_path / "out" / ".packing" / "looked").mkdir(parents=True)
    pack(source(many, tmp_path / "out"))
    assert "packed already" in capsys.readouterr().out
    assert digest(tmp_path / "out") == before
    with pytest.raises(UserError, match="is not empty"):
        pack(source(many, tmp_path / "out"))


def test_tasks_and_finalize_give_the_bytes_of_one_machine(
    many: Path, tmp_path: Path, whole: tuple[dict[str, str], float], run: Run
) -> None:
    out = tmp_path / "out"
    for task in ("1/3", "3/3"):
        pack(source(many, out, task=task))
    done = run("shard_tools", "finalize", str(out), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--task 2/3" in done.stderr
    assert not (out / "manifest.json").exists()
    with pytest.raises(UserError, match="another number of tasks"):
        pack(source(many, out, task="2/4"))
    pack(source(many, out, task="2/3"))
    pack(source(many, out, task="2/3"))  # a task may run twice
    done = run("shard_tools", "finalize", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert digest(out) == whole[0]
    with pytest.raises(UserError, match="packed already"):
        finalize(FinalizeConfig(out=out))
    with pytest.raises(UserError, match="holds no parts"):
        finalize(FinalizeConfig(out=tmp_path / "nothing"))


def test_finalize_notices_a_source_that_changed(many: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(many, images)
    for task in ("1/2", "2/2"):
        pack(source(images, tmp_path / "out", task=task))
    shutil.copy(images / "male" / "copy.png", images / "male" / "zzz.png")
    with pytest.raises(UserError, match=r"as it is now: pack again with --task 2/2$"):
        finalize(FinalizeConfig(out=tmp_path / "out"))
    pack(source(images, tmp_path / "out", task="2/2"))
    finalize(FinalizeConfig(out=tmp_path / "out"))
    pack(source(images, tmp_path / "again"))
    assert digest(tmp_path / "out") == digest(tmp_path / "again")


@pytest.mark.parametrize("task", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_task_is_one_of_n(many: Path, tmp_path: Path, task: str) -> None:
    with pytest.raises(UserError, match="is not K/N"):
        pack(source(many, tmp_path / "out", task=task))
    assert not (tmp_path / "out").exists()


def test_an_image_that_changes_under_the_packer_is_noticed(tmp_path: Path) -> None:
    @dataclass(kw_only=True)
    class Changing(Folders):
        def read(self, record: Record) -> bytes:
            path = self.images / record.name
            content = path.read_bytes()
            path.write_bytes(later)
            return content

    pictures = [np.full((8, 8), value, dtype=np.uint8) for value in (10, 200)]
    (tmp_path / "images" / "male").mkdir(parents=True)
    for picture in pictures:
        Image.fromarray(picture).save(tmp_path / "images" / "male" / "a.png")
        later = (tmp_path / "images" / "male" / "a.png").read_bytes()
    Image.fromarray(pictures[0]).save(tmp_path / "images" / "male" / "a.png")
    with pytest.raises(UserError, match=r"male/a\.png is not what it was .* run the same command again"):
        pack(Changing(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, workers=1))
    pack(Changing(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, workers=1))
    manifest = read_manifest(tmp_path / "out")
    row = manifest.index("train")[0]
    tar = manifest.shard_paths("train")[0].read_bytes()
    assert tar[row["offset"] : row["offset"] + row["length"]] == later


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_refuses_keeps_what_was_done(
    many: Path, tmp_path: Path, whole: tuple[dict[str, str], float], workers: int
) -> None:
    out = tmp_path / "out"
    refused = subprocess.run(
        ["bash", "-c", 'ulimit -f 300; exec "$@"', "bash", *command(many, out, workers)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "File too large" in refused.stderr
    said = [line for line in refused.stderr.splitlines() if not line.startswith("looking at images: ")]
    assert len(said) == 1  # beside the progress, on slow machines
    assert not (out / "manifest.json").exists()
    subprocess.run(command(many, out, workers), check=True, capture_output=True)
    assert digest(out) == whole[0]


def files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())


def test_a_dry_run_prints_the_plan_and_writes_nothing(many: Path, tmp_path: Path, run: Run) -> None:
    done = run(*command(many, tmp_path / "out", 1, "--dry-run")[2:], cwd=tmp_path)
    assert done.returncode == 0
    for text in (
        "3,502 images",
        "train: ",
        "female",
        "shards",
        "MB",
        "copies of other images: 1 byte-identical",
        "nothing",
    ):
        assert text in done.stdout
    assert not list(files(tmp_path))


def test_two_packs_into_one_directory_do_not_mix(
    many: Path, tmp_path: Path, whole: tuple[dict[str, str], float]
) -> None:
    out = tmp_path / "out"
    other = [sys.executable, "-m", "shard_tools", "pack", "folders", "--images", str(many), "--out", str(out)]
    first = subprocess.Popen(command(many, out, 1), stdout=subprocess.DEVNULL)
    while not (out / ".packing" / "source.json").exists():
        assert first.poll() is None
    message = r"out is locked by process \d+ on .*: wait until it has ended, or give"
    for parts in (1, 2):
        with pytest.raises(UserError, match=message), unfinished.held(out, 0, parts, patience=0):
            pass
    second = subprocess.run([*other, "--seed", "7"], capture_output=True, text=True, check=False)
    assert first.wait() == 0
    assert second.returncode == 2
    assert "was finished or removed by another process" in second.stderr
    assert digest(out) == whole[0]


def test_tasks_of_one_pack_run_side_by_side_but_not_the_same_twice(tmp_path: Path) -> None:
    with unfinished.held(tmp_path / "out", 0, 2):
        with unfinished.held(tmp_path / "out", 1, 2, patience=0):
            pass
        for part, parts in ((0, 2), (0, 1)):
            with pytest.raises(UserError, match="is locked by"), unfinished.held(tmp_path / "out", part, parts, 0):
                pass


def test_what_cannot_be_packed_blocks_nothing(many: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong" / "x").mkdir(parents=True)
    shutil.copy(many / "female" / "00000.png", tmp_path / "wrong" / "x")
    for task in ("1/2", "2/2"):
        with pytest.raises(UserError, match="no class directories"):
            pack(source(tmp_path / "wrong", tmp_path / "out", task=task))
    assert not (tmp_path / "out").exists()
    (tmp_path / "damaged" / "male").mkdir(parents=True)
    (tmp_path / "damaged" / "male" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    for task in ("1/2", "2/2"):
        pack(source(tmp_path / "damaged", tmp_path / "out", task=task))
    with pytest.raises(UserError, match="none of 1 image"):
        finalize(FinalizeConfig(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
