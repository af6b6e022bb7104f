from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shard_tools.base.errors import UserError
from shard_tools.base.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from shard_tools.base.lock import locked
with locked(Path(sys.argv[1]), Path("run"), "cancel that", shared=sys.argv[2] == "shared"):
    print("holds it", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path, kind: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, path, kind], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds it\n"
        try:
            yield other
        finally:
            other.kill()


def lock(path: Path, *, patience: float = 0, shared: bool = False) -> None:
    with locked(path, Path("run"), "cancel that", patience=patience, shared=shared):
        pass


def test_one_process_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "train.lock"
    with holder(path) as other:
        for shared in (False, True):
            with pytest.raises(UserError, match=f"run is locked by process {other.pid} on .*: cancel that"):
                lock(path, shared=shared)
        other.send_signal(signal.SIGKILL)
        with locked(path, Path("run"), "", patience=60):  # continues as soon as it has ended
            assert str(other.pid) not in path.read_text()
    lock(path)


def test_several_processes_share_a_shared_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "shared"):
        lock(path, shared=True)
        with pytest.raises(UserError, match="is locked by"):
            lock(path)


def test_a_lock_whose_holder_removed_it_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, Path("run"), ""):
        other = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path, "alone"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert "waiting up to 120 s" in other.stdout.readline()
        path.unlink()
    _, errors = other.communicate(timeout=60)
    assert "run was finished or removed by another process" in errors


def test_the_lock_names_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "337624")
    lock(tmp_path / "lock")
    assert ", job 337624" in (tmp_path / "lock").read_text()
