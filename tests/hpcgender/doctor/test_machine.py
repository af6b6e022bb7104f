"""Checks of `hpcgender doctor`, and the failures of each: packages, driver, cores and limits of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgender.doctor import machine
from tests.conftest import REPOSITORY
from tests.programs import put


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.packages("dali").state == "green"
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delattr("nvidia.dali")
    assert machine.packages("dali").state == "yellow"
    assert machine.packages("torchvision").state == "green"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert machine.packages("dali").state == "red"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (
            "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "ImportError: libcudart.so.13: cannot",
        ),
        ("raise RuntimeError('built for another Python')", "RuntimeError: built for another Python"),
        ("", "AttributeError: module 'torch' has no attribute '__version__'"),
    ],
)
def test_a_broken_torch_is_one_red_line(program: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "hpcgender", "doctor"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert done.stdout.startswith("packages: Python 3.")
    assert f"PyTorch cannot be imported: {says}" in done.stdout
    assert done.stdout.endswith("install again: bash jobs/install.sh\n")


@pytest.mark.parametrize(
    ("version", "cuda", "state", "says"),
    [
        ("580.65.06", "13.0", "green", ""),
        ("535.104.05", "13.0", "red", "install a torch for CUDA 12"),
        ("390.77", "13.0", "red", "have the driver updated"),
        ("580.65.06", None, "red", "install a torch for CUDA"),
        ("", "13.0", "green", ""),
    ],
)
def test_a_driver_that_does_not_fit_is_told(
    version: str, cuda: str | None, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake of nvidia-smi, as there may be no GPU."""
    put(tmp_path, "nvidia-smi", f"echo {version}")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = machine.driver(cuda)
    assert found.state == state
    assert says in found.advice


def test_too_few_cores_and_too_many_threads_are_told() -> None:
    assert machine.cores(1, {"OMP_NUM_THREADS": "1"}).state == "green"
    assert machine.cores(1, {"OMP_NUM_THREADS": "100000"}).state == "yellow"
    assert machine.cores(100_000, {}).state == "red"


@pytest.mark.parametrize(("limit", "state"), [(300, "red"), (1024, "yellow"), (4096, "green")])
def test_a_low_limit_of_open_files_is_told(limit: int, state: str) -> None:
    program = "from hpcgender.doctor.machine import open_files; print(open_files().state)"
    command = f'ulimit -Hn {limit}; exec "$0" -c "$1"'
    shell = ["bash", "-c", f"ulimit -Sn {limit}; {command}", sys.executable, program]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == state, done.stderr


def test_too_little_shared_memory_is_told(tmp_path: Path) -> None:
    assert machine.shared_memory(tmp_path, enough=1, few=1).state == "green"
    assert machine.shared_memory(tmp_path, enough=1e18).state == "yellow"
    assert machine.shared_memory(tmp_path, enough=1e18, few=1e18).state == "red"
    assert machine.shared_memory(tmp_path / "none").state == "red"
