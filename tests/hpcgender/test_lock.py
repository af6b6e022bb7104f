from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgender.train.lock import only_training
from shard_tools.base.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from hpcgender.train.lock import only_training
with only_training(Path(sys.argv[1])):
    print("trains", flush=True)
    time.sleep(60)
"""


def test_a_run_directory_has_one_training_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, run_dir], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "trains\n"
        message = f"run is locked by process {other.pid} on .*: cancel that, or give another"
        with pytest.raises(UserError, match=message), only_training(run_dir, patience=0):
            pass
        other.send_signal(signal.SIGKILL)
        with only_training(run_dir, patience=60):  # continues as soon as it has ended
            assert str(other.pid) not in (run_dir / "train.lock").read_text()
    with only_training(run_dir, patience=0):
        pass


def test_the_lock_names_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "337624")
    with only_training(tmp_path, patience=0):
        assert ", job 337624" in (tmp_path / "train.lock").read_text()
