"""A quota is used up while a command writes: one line and exit code 2, nothing half-written, and on with it after.

Of btrfs, whose quotas hold for root, too, where its tools are; and by the shim of the campaign where there is gcc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.injuries import tidy
from tests.faults.preload import Shim, counted
from tests.faults.processes import Running, start
from tests.faults.scenarios import Scenario, files, filled, make, scenarios, undisturbed

NAMES = ("pack, 1 worker", "train", "evaluate")
IMAGE_BYTES = 160 << 20
"""Of a file system: btrfs's smallest is 109 MiB."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
"""With one of its own a command is a new interpreter, whose outputs are not pytest's."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("quota") / "base"
    make(base)
    return base


def told(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


@contextmanager
def btrfs(cwd: Path) -> Iterator[Callable[[object], None]]:
    """Makes a directory a file system with quotas; yields what sets how many bytes it takes, "none" for all."""
    image = cwd.parent / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    try:
        told("mkfs.btrfs", "--quiet", image)
        told("mount", "-o", "loop", image, cwd)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("btrfs can be mounted by root, where its tools and the kernel's module are")
    try:
        told("btrfs", "quota", "enable", cwd)
        yield lambda most: told("btrfs", "qgroup", "limit", most, cwd)
    finally:
        told("umount", "--lazy", cwd)


def refused_in_one_line(running: Running, cwd: Path) -> None:
    """The command ends because of its quota, and nothing that it leaves is half-written."""
    assert tidy(running, {2}) == 2
    assert "Disk quota exceeded" in running.text.splitlines()[-1], running.text
    partial = [name for name in files(cwd) if name.endswith((".partial", ".tmp"))]
    assert not partial
    assert not (cwd / "out" / "manifest.json").exists()
    assert not (cwd / "out" / "evaluation.json").exists()


def goes_on(scenario: Scenario, cwd: Path, base: Path, expected: object) -> None:
    """Given again it leaves what an undisturbed one does."""
    again = start(filled(scenario.steps[0], base / "data"), cwd, 1, environment=ENVIRONMENT)
    assert again.ended() == 0, again.text
    assert scenario.result(cwd) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_quota_that_is_used_up_loses_nothing(name: str, base: Path, tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("the shim that refuses to write is compiled by gcc")
    if name != NAMES[0] and os.geteuid() == 0 and shutil.which("mkfs.btrfs"):
        pytest.skip("a file system's own quota is used up instead")
    (scenario,) = (one for one in scenarios(base) if one.name == name)
    shim, command = Shim(tmp_path), filled(scenario.steps[0], base / "data")
    (tmp_path / "whole").mkdir()
    whole = undisturbed(scenario, tmp_path / "whole", base / "data", shim)
    cwd, counts = tmp_path / "work", tmp_path / "counts"
    cwd.mkdir()
    room = whole.counts[0].written // 2
    environment = shim.environment(cwd, counts, FAULT_ROOM=room)
    refused_in_one_line(start(command, cwd, 0, environment=environment), cwd)
    assert counted(counts).hits
    goes_on(scenario, cwd, base, whole.result)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_systems_quota_that_is_used_up_loses_nothing(name: str, base: Path, tmp_path: Path) -> None:
    (scenario,) = (one for one in scenarios(base) if one.name == name)
    cwd = tmp_path / "work"
    cwd.mkdir()
    with btrfs(cwd) as limit:
        (tmp_path / "whole").mkdir()
        whole = undisturbed(scenario, tmp_path / "whole", base / "data")
        limit(max(whole.bytes // 2, 1 << 16))
        refused_in_one_line(start(filled(scenario.steps[0], base / "data"), cwd, 0, environment=ENVIRONMENT), cwd)
        limit("none")
        goes_on(scenario, cwd, base, whole.result)
