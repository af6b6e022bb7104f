"""Storage that fails for a moment or for good, refuses, or is full: told as what it is, and nothing half-written."""

from __future__ import annotations

import csv
import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shard_tools.base import storage
from shard_tools.base.commands import guarded
from shard_tools.base.errors import BAD_INPUT, STORAGE, StorageError, UserError
from shard_tools.base.files import NamedFile, whole_text, write_file
from shard_tools.base.storage import pread, retried, unreadable
from shard_tools.commands.verify import VerifyConfig
from shard_tools.manifest import manifest_sha256, read_manifest
from shard_tools.pack import pack
from shard_tools.sources import ImageDirectory
from shard_tools.sources.folders import Folders
from shard_tools.verify import verify
from tests.shard_tools.pictures import picture, rows, save


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))


class Flaky:
    """A call that fails the first `times` times."""

    def __init__(self, times: int, number: int = errno.ESTALE) -> None:
        self.left, self.number = times, number

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return "read"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN])
def test_what_passes_is_tried_again_and_what_stays_is_the_storages_fault(number: int) -> None:
    assert retried(Flaky(2, number), Path("a.tar")) == "read"
    with pytest.raises(StorageError, match=r"a\.tar: .*its storage or the network to it fails") as failed:
        retried(Flaky(3, number), Path("a.tar"))
    assert "pack" not in str(failed.value)


def test_other_errors_are_not_tried_again_and_have_their_own_remedy() -> None:
    flaky = Flaky(1, errno.EACCES)
    with pytest.raises(PermissionError) as refused:
        retried(flaky, Path("a.tar"))
    assert "pack" not in str(unreadable(refused.value, "a.tar"))
    assert "correct its permissions" in str(unreadable(refused.value, "a.tar"))
    assert str(unreadable(OSError(errno.EMFILE, "Too many open files"), "a.tar")).endswith("ulimit -n 65536")
    missing = unreadable(FileNotFoundError(errno.ENOENT, "No such file or directory"), "a.tar")
    assert str(missing) == "cannot read a.tar: No such file or directory; restore or pack it again"


def test_a_read_that_is_answered_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, begin: whole(file, min(size, 7), begin))
    with (tmp_path / "a").open("rb") as file:
        assert pread(file.fileno(), 50, 10) == bytes(range(10, 60))
        assert pread(file.fileno(), 50, 90) == bytes(range(90, 100))


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a"), BAD_INPUT, "out/a: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), BAD_INPUT, "No space left on device, in writing a file"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), BAD_INPUT, "Disk quota exceeded"),
        (OSError(errno.EMFILE, "Too many open files", "a.tar"), BAD_INPUT, "ulimit -n"),
        (OSError(errno.EIO, "Input/output error", "a.tar"), STORAGE, "a.tar: Input/output error: its storage"),
        (StorageError("the disk is on fire"), STORAGE, "the disk is on fire"),
    ],
)
def test_what_a_disk_refuses_is_one_line_with_or_without_a_name(
    error: Exception, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert guarded("program", work) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("program: ")
    assert says in line


def test_a_full_disk_is_named_by_the_file() -> None:
    with (
        pytest.raises(OSError, match="No space left") as full,
        io.BufferedWriter(NamedFile(Path("/dev/full"), Path("out/table.csv"))) as file,
    ):
        file.write(b"x")
    assert full.value.filename == "out/table.csv"


@contextmanager
def no_large_files() -> Iterator[None]:
    """No file may grow beyond 4 KB: the kernel refuses as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with no_large_files():
        with pytest.raises(OSError, match="File too large") as refused, whole_text(table) as file:
            csv.writer(file).writerows([["x" * 100]] * 1000)
        with pytest.raises(UserError, match=rf"cannot write {tmp_path}/b: File too large"):
            write_file(tmp_path / "b", bytes(10_000))
    assert refused.value.filename == str(table)
    assert list(tmp_path.iterdir()) == []


def test_a_mapped_file_that_is_cut_short_leaves_the_place_where_the_process_ends(folders: Path, tmp_path: Path) -> None:
    pack(Folders(images=folders, out=tmp_path / "out", val=0, test=0, workers=1))
    index = tmp_path / "out" / "train" / "index.npy"
    cut = (
        f"import os, numpy.lib.format as form; load = form.open_memmap; "
        f"form.open_memmap = lambda *a, **k: (load(*a, **k), os.truncate({str(index)!r}, 0))[0]; "
        f"from shard_tools.cli import main; main()"
    )
    words = [sys.executable, "-c", cut, "inspect", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr
    assert "inspect/statistics.py" in done.stderr


@pytest.mark.parametrize("read", [read_manifest, manifest_sha256])
def test_a_manifest_is_read_again_and_failing_storage_is_not_taken_for_no_data_set(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    pack(Folders(images=folders, out=tmp_path / "out", val=0, test=0, workers=1))
    expected, bytes_of = read(tmp_path / "out"), Path.read_bytes
    flaky = Flaky(2)
    monkeypatch.setattr(Path, "read_bytes", lambda path: flaky() and bytes_of(path))
    assert read(tmp_path / "out") == expected
    flaky.left = 3
    with pytest.raises(StorageError, match=r"manifest\.json: Stale file handle"):
        read(tmp_path / "out")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for seed in range(12):
        save(tmp_path / "images" / ("male", "female")[seed % 2] / f"{seed}.jpg", picture(seed))
    return tmp_path / "images"


def flaky_reads(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The storage of an image fails so often."""
    read, left = ImageDirectory.read, {"3.jpg": times}

    def now(self: ImageDirectory, record: Any) -> bytes:
        name = record.name.rpartition("/")[2]
        if left.get(name):
            left[name] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(self, record)

    monkeypatch.setattr(ImageDirectory, "read", now)


def test_an_image_is_not_left_out_because_its_storage_fails_for_a_moment(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky_reads(monkeypatch, 2)
    pack(Folders(images=folders, out=tmp_path / "out", val=0, test=0, workers=1))
    assert len(rows(tmp_path / "out")) == 12
    assert not (tmp_path / "out" / "quarantine").exists()


def test_packing_stops_where_storage_goes_on_failing_and_resumes(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Folders(images=folders, out=tmp_path / "out", val=0, test=0, workers=1)
    flaky_reads(monkeypatch, 3)
    with pytest.raises(StorageError, match=r"3\.jpg: Stale file handle"):
        pack(source)
    pack(source)
    assert len(rows(tmp_path / "out")) == 12


def test_verify_reads_a_shard_again_whose_storage_fails_once(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(Folders(images=folders, out=tmp_path / "out", val=0, test=0, workers=1))
    opened, left = Path.open, [1]

    def once(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.suffix == ".tar" and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", once)
    assert verify(VerifyConfig(directories=(tmp_path / "out",), workers=1)) == 0
    left[0] = 3
    assert verify(VerifyConfig(directories=(tmp_path / "out",), workers=1)) == 1
    out = capsys.readouterr().out
    assert "its storage or the network to it fails" in out
    assert "has changed" not in out


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare to mount")
@pytest.mark.parametrize("options", ["ro", "size=4k,mode=1777"])
def test_workers_without_shared_memory_are_told_as_that(folders: Path, tmp_path: Path, options: str) -> None:
    command = f"{sys.executable} -m shard_tools pack folders --images {folders} --out {tmp_path / 'out'} --workers 2"
    fill = "" if options == "ro" else "head -c 4096 /dev/zero > /dev/shm/full;"
    script = f"mount -t tmpfs -o {options} tmpfs /dev/shm || exit 77; {fill} {command}"
    done = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("cannot mount here")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "/dev/shm" in line
    assert "--workers 1" in line
