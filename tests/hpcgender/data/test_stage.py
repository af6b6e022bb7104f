from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from hpcgender.data.stage import staged
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest, read_manifest, write_manifest

SPAWN = get_context("spawn")
MINUTE = 60.0


def read_until_released(root: Path, stage_to: Path, rank: int, size: int, limit: int, pipe: Connection) -> None:
    """A rank that holds its shards until it hears otherwise, and may write no file longer than `limit`, if any."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with staged(read_manifest(root), "train", stage_to, rank, size) as paths:
        pipe.send([(path, path.stat().st_ino) for path in paths])
        pipe.recv()


class Rank:
    """Such a process, seen from outside."""

    def __init__(self, root: Path, stage_to: Path, rank: int = 0, size: int = 1, limit: int = 0) -> None:
        self.pipe, other = SPAWN.Pipe()
        self.process = SPAWN.Process(
            target=read_until_released, args=(root, stage_to, rank, size, limit, other), daemon=True
        )
        self.process.start()
        other.close()

    def files(self) -> list[tuple[Path, int]]:
        """Its shards and their inodes, once it has them."""
        assert self.pipe.poll(MINUTE)
        held: list[tuple[Path, int]] = self.pipe.recv()
        return held

    def paths(self) -> list[Path]:
        return [path for path, _ in self.files()]

    def leave(self) -> None:
        self.pipe.send("leave")
        self.process.join(MINUTE)
        assert self.process.exitcode == 0
        self.pipe.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """A data set of the test's own."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 256 KiB, less than half of what training has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("may not mount a small disk here: run as root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def sources(root: Path) -> list[Path]:
    return read_manifest(root).shard_paths("train")


def same_bytes(paths: list[Path], root: Path) -> bool:
    return [path.read_bytes() for path in paths] == [path.read_bytes() for path in sources(root)]


def another(copy: Path) -> Manifest:
    """The same shards under another manifest."""
    manifest = read_manifest(copy)
    manifest.options["seed"] = 12345
    write_manifest(manifest)
    return read_manifest(copy)


class Stuck:
    """A shard of a data set whose bytes come from the test, so that a copy of it ends when the test says so."""

    def __init__(self, shard: Path) -> None:
        self.shard = shard
        self.kept = shard.with_suffix(".kept")
        shard.rename(self.kept)
        os.mkfifo(shard)

    def opened(self) -> int:
        """Waits until a process copies the shard, and returns what it reads from."""
        return os.open(self.shard, os.O_WRONLY)

    def feed(self) -> int:
        """The same, after all but the last byte went through."""
        pipe = self.opened()
        os.write(pipe, self.kept.read_bytes()[:-1])
        return pipe

    def mend(self) -> None:
        self.kept.replace(self.shard)


def test_shards_are_on_the_other_disk_as_long_as_they_are_read(
    shards: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(shards)
    with staged(manifest, "train", scratch, 0, 1) as paths, staged(manifest, "val", scratch, 0, 1) as val:
        place = scratch / f"hpcgender-{manifest.sha256[:16]}"
        assert paths == [place / "train" / path.name for path in sources(shards)]
        assert len(paths) > 3
        assert same_bytes(paths, shards)
        assert [path.parent for path in val] == [place / "val"] * len(val)
        assert place.stat().st_mode & 0o077 == 0
    assert list(scratch.iterdir()) == []
    out, err = capfd.readouterr()
    size = sum(path.stat().st_size for path in sources(shards)) / 1e6
    assert out.startswith(f"staged train: {size:.1f} MB in {len(paths)} shards to {place}/train in 0 s, ")
    assert len(out.splitlines()) == 2
    assert not err


def test_the_ranks_of_a_node_share_one_copy(shards: Path, scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ranks = [Rank(shards, scratch, rank, 4) for rank in range(4)]
    first, *others = [rank.files() for rank in ranks]
    assert same_bytes([path for path, _ in first], shards)
    assert others == [first] * 3  # no shard was copied again after a rank had it
    for rank in ranks[:-1]:
        rank.leave()
        assert [(path, path.stat().st_ino) for path, _ in first] == first
    ranks[-1].leave()
    assert list(scratch.iterdir()) == []
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert not err


def test_two_jobs_at_once_share_one_copy(shards: Path, scratch: Path) -> None:
    jobs = [[Rank(shards, scratch, rank, 2) for rank in range(2)] for _ in range(2)]
    files = [rank.files() for job in jobs for rank in job]
    assert files == [files[0]] * 4
    for rank in jobs[0]:
        rank.leave()
    assert same_bytes([path for path, _ in files[0]], shards)
    for rank in jobs[1]:
        rank.leave()
    assert list(scratch.iterdir()) == []


def test_a_rank_takes_over_the_copy_of_one_that_is_killed(copy: Path, scratch: Path) -> None:
    stuck = Stuck(sources(copy)[0])
    killed = Rank(copy, scratch, 0, 2)
    pipe = stuck.feed()
    waiting = Rank(copy, scratch, 1, 2)
    stuck.mend()
    killed.kill()
    os.close(pipe)
    assert same_bytes(waiting.paths(), copy)
    assert not list(scratch.rglob("*.partial"))
    waiting.leave()
    assert list(scratch.iterdir()) == []


def test_after_all_were_killed_the_next_run_goes_on(copy: Path, scratch: Path) -> None:
    stuck = Stuck(sources(copy)[2])
    killed = Rank(copy, scratch)
    pipe = stuck.feed()
    killed.kill()
    os.close(pipe)
    (partial,) = scratch.rglob("*.partial")
    assert partial.stat().st_size > 0
    stuck.mend()
    done = {(path, path.stat().st_ino) for path in scratch.rglob("*.tar")}
    assert len(done) == 2
    again = Rank(copy, scratch)
    files = again.files()
    assert done < set(files)
    assert same_bytes([path for path, _ in files], copy)
    again.leave()
    assert list(scratch.iterdir()) == []


def test_what_a_killed_run_left_is_used_again(shards: Path, scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    killed = Rank(shards, scratch)
    left = killed.files()
    killed.kill()
    os.truncate(left[1][0], 1000)
    with staged(read_manifest(shards), "train", scratch, 0, 1) as paths:
        assert same_bytes(paths, shards)
        kept = [path.stat().st_ino == inode for path, inode in left]
        assert kept == [True, False] + [True] * (len(left) - 2)
        assert " MB in 1 shard to " in capfd.readouterr().out
        with staged(read_manifest(shards), "train", scratch, 0, 1) as again:
            assert again == paths
        assert capfd.readouterr().out.startswith("train is staged: ")
        assert same_bytes(paths, shards)
    assert list(scratch.iterdir()) == []


def test_what_killed_runs_left_of_other_data_sets_is_removed(shards: Path, copy: Path, scratch: Path) -> None:
    running, killed = Rank(shards, scratch), Rank(copy, scratch)
    assert running.files() == killed.files()  # one manifest, one place
    other = Rank(another(copy).root, scratch)
    (left, _), *_ = other.files()
    assert len(list(scratch.iterdir())) == 2
    other.kill()
    killed.kill()
    with staged(read_manifest(shards), "val", scratch, 0, 1):
        assert not left.exists()
        assert len(list(scratch.glob("*/*/*.tar"))) > len(sources(shards))
    assert list(scratch.glob("*/train/*.tar"))
    running.leave()
    assert list(scratch.iterdir()) == []


def test_a_disk_that_is_too_small_is_not_used(
    shards: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ranks = [Rank(shards, small_disk, rank, 2) for rank in range(2)]
    assert [rank.paths() for rank in ranks] == [sources(shards)] * 2
    assert list(small_disk.iterdir()) == []
    for rank in ranks:
        rank.leave()
    out, err = capfd.readouterr()
    size = sum(path.stat().st_size for path in sources(shards)) / 1e6
    assert err.splitlines() == [
        f"hpcgender: --stage-to {small_disk} cannot hold the {size:.1f} MB of train (No space left on device):"
        f" reading from {shards} instead"
    ]
    assert not out


def test_a_disk_that_would_be_full_is_not_used(shards: Path, small_disk: Path) -> None:
    pages = sum(-(-path.stat().st_size // 4096) for path in sources(shards))
    for spare, fits in ((2, False), (20, True)):
        subprocess.run(["mount", "-o", f"remount,size={(pages + spare) * 4}k", small_disk], check=True)
        with staged(read_manifest(shards), "train", small_disk, 0, 1) as paths:
            assert (paths == sources(shards)) != fits
            assert same_bytes(paths, shards)
        assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_is_left_as_it_was(
    copy: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    stuck = Stuck(sources(copy)[1])
    ranks = [Rank(copy, small_disk, rank, 2) for rank in range(2)]
    pipe = stuck.feed()  # there was room as the copies began
    with (small_disk / "another's").open("wb", buffering=0) as file:
        while free := shutil.disk_usage(small_disk).free:
            file.write(bytes(free))
    with suppress(BrokenPipeError):  # the copy has failed already
        os.write(pipe, bytes(1_000_000))
    os.close(pipe)
    assert [rank.paths() for rank in ranks] == [sources(copy)] * 2
    assert [path.name for path in small_disk.iterdir()] == ["another's"]
    for rank in ranks:
        rank.leave()
    _, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert "(No space left on device)" in err


def one_fails(copy: Path, scratch: Path, other: signal.Signals) -> Rank:
    """Lets rank 1 fail in the middle of its first shard, for which rank 0 waits, and sends that a signal before.

    Returns rank 0; rank 1 reads the data set itself and has left.
    """
    stuck = Stuck(sources(copy)[1])
    failing = Rank(copy, scratch, 1, 2, limit=100_000)
    pipe = stuck.opened()
    waiting = Rank(copy, scratch, 0, 2)
    while len(list(scratch.rglob("*.tar"))) < len(sources(copy)) - 1:
        time.sleep(0.01)
    stuck.mend()  # it could be copied now
    os.kill(waiting.process.pid or 0, other)
    with suppress(BrokenPipeError):
        os.write(pipe, bytes(1_000_000))
    os.close(pipe)
    assert failing.paths() == sources(copy)
    failing.leave()
    return waiting


def test_if_one_rank_fails_all_read_the_data_set_itself(
    copy: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    waiting = one_fails(copy, scratch, signal.SIGCONT)
    assert waiting.paths() == sources(copy)
    waiting.leave()
    assert list(scratch.iterdir()) == []
    _, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert "(File too large)" in err


def test_a_failure_is_forgotten_when_all_are_gone(copy: Path, scratch: Path) -> None:
    one_fails(copy, scratch, signal.SIGSTOP).kill()
    with staged(read_manifest(copy), "train", scratch, 0, 1) as paths:
        assert paths != sources(copy)
        assert same_bytes(paths, copy)
    assert list(scratch.iterdir()) == []


def test_a_failure_leaves_nothing_with_those_who_read_on(shards: Path, scratch: Path) -> None:
    reading = Rank(shards, scratch)
    held = reading.paths()
    held[0].unlink()
    failing = Rank(shards, scratch, limit=100_000)
    assert failing.paths() == sources(shards)
    failing.leave()
    assert sorted(held[0].parent.iterdir()) == held[1:]
    reading.leave()
    assert list(scratch.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_done_without(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for local_rank in range(2):
        with staged(read_manifest(shards), "val", tmp_path / "file" / "scratch", local_rank, 2) as paths:
            assert paths == read_manifest(shards).shard_paths("val")
    _, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert "(Not a directory)" in err


def test_a_damaged_shard_is_named_and_nothing_kept(copy: Path, scratch: Path) -> None:
    shard = sources(copy)[2]
    with shard.open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))
    with (
        pytest.raises(UserError, match=rf"{shard} was changed since it was packed"),
        staged(read_manifest(copy), "train", scratch, 0, 1),
    ):
        pass
    assert list(scratch.iterdir()) == []


def test_a_missing_shard_is_named(copy: Path, scratch: Path) -> None:
    sources(copy)[0].unlink()
    with (
        pytest.raises(UserError, match=r"cannot read .*copy/train/train-000000\.tar: No such file"),
        staged(read_manifest(copy), "train", scratch, 0, 1),
    ):
        pass
    assert list(scratch.iterdir()) == []


def test_an_error_of_the_reader_is_its_own(shards: Path, scratch: Path) -> None:
    with (
        pytest.raises(OSError, match="of the reader"),
        staged(read_manifest(shards), "train", scratch, 0, 1),
    ):
        raise OSError("of the reader")
    assert list(scratch.iterdir()) == []


def test_staging_needs_no_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, hpcgender.data.stage; assert 'torch' not in sys.modules"], check=True
    )
