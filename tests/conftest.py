"""What tests of all rooms share: command lines run for real, drawn faces, and real ones where there are any."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.forked import Forks, fixed

settings.register_profile("here", deadline=None, max_examples=50)  # no test is timed: machines are shared
settings.load_profile("here")

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = Path(os.environ.get("HPCGENDER_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

SLOW_TO_IMPORT = {
    ("hpcgender", command)
    for command in ("train", "evaluate", "cam", "predict", "compare", "report", "models", "plan", "show-batch")
}
"""Commands that import torch or matplotlib."""

SLOW_MODULES = ("jobs.agent", "torch.distributed.run", "tests.hpcgender.inference.interrupted")
"""Modules that do, whatever their arguments."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


LONGEST = (
    *("tests/cluster", "tests/hpcgender/test_resume.py", "tests/hpcgender/test_end_to_end.py"),
    *("tests/hpcgender/cam/test_cam.py", "tests/hpcgender/inference/test_resuming.py"),
    *("tests/hpcgender/test_distributed.py", "tests/hpcgender/test_stop.py", "tests/jobs/test_launch.py"),
    *("tests/jobs/test_scheduler.py", "tests/jobs/test_demo.py", "tests/shard_tools/test_resume.py"),
    *("tests/shard_tools/test_webdataset.py", "tests/hpcgender/evaluate/test_evaluate.py"),
    *("tests/hpcgender/app/test_browser.py", "tests/hpcgender/app/test_answers.py"),
    *("tests/hpcgender/study/test_local.py", "tests/hpcgender/study/test_queue.py"),
    *("tests/hpcgender/study/test_tuned.py", "tests/hpcgender/test_presets.py"),
    *("tests/hpcgender/test_trackers.py", "tests/hpcgender/evaluate/test_robustness.py"),
    *(
        "tests/hpcgender/test_mixture.py",
        "tests/hpcgender/test_timm.py",
        "tests/hostile/test_hostile.py",
        "tests/faults/test_faults.py",
        "tests/faults/test_quota.py",
        "tests/faults/test_network.py",
    ),
    *("tests/pages/test_every_command.py", "tests/pages/test_tutorial.py"),
    "tests/test_wheel.py",
)
"""What takes half a minute or more, the longest first, so that no worker is busy alone at the end."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """With `pytest -n` one process runs all tests of a file, or all of the clusters: their fixtures are made once."""

    @staticmethod
    def scope(nodeid: str) -> str:
        """The file of a test, or the directory of the clusters."""
        return "tests/cluster" if nodeid.startswith("tests/cluster/") else nodeid.partition("::")[0]

    def _split_scope(self, nodeid: str) -> str:
        return self.scope(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, all others as they were."""
    order = {path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(ByFile.scope(item.nodeid), len(order)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs `python -m <arguments>` and returns the completed process; for at most 15 minutes.

    The commands that import torch are forked of a process that has done so.
    """
    elsewhere = tmp_path_factory.mktemp("cwd")
    forks = Forks({**os.environ, "OMP_NUM_THREADS": "1"})

    def run(*arguments: object, cwd: Path = elsewhere, **environment: str) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        slow = tuple(words[:2]) in SLOW_TO_IMPORT or words[0] in SLOW_MODULES
        if slow and fixed(variables) == fixed(forks.environment):
            return forks.run(words, cwd, variables, timeout=900)
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=cwd, env=variables, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip

    yield run
    forks.close()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A directory of 320 drawn faces of 48x48 pixels, named as MORPH's."""
    out = tmp_path_factory.mktemp("faces") / "images"
    drawn = run("shard_tools", "synthetic", "--out", out, "--count", 320, "--size", 48, "--seed", 7)
    assert drawn.returncode == 0, drawn.stderr
    return out


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, run: Run, faces: Path) -> Path:
    """The drawn faces packed, in several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    packed = run("shard_tools", "pack", "morph", "--images", faces, "--out", out, "--shard-mb", 0.2)
    assert packed.returncode == 0, packed.stderr
    return out


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Other drawn faces, packed, of another source."""
    out = tmp_path_factory.mktemp("packed") / "others"
    drawn = ("pack", "synthetic", "--count", 120, "--size", 48, "--seed", 11)
    packed = run("shard_tools", *drawn, "--out", out, "--val", 0.15, "--test", 0.15, "--shard-mb", 0.1)
    assert packed.returncode == 0, packed.stderr
    return out


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """The directory that is the queue of tests/jobs/directory_scheduler.py, whose site stands beside it."""
    (tmp_path / "site.toml").write_text('scheduler = "directory"\n')
    (tmp_path / "queue").mkdir()
    return tmp_path / "queue"


@pytest.fixture
def hpcgender(tmp_path: Path, queue: Path, run: Run) -> Run:
    """Runs hpcgender on a machine with that scheduler, in the directory beside the queue."""

    def hpcgender(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {"DIRECTORY_QUEUE": str(queue), "PYTHONPATH": str(REPOSITORY), **more}
        return run("tests.jobs.directory_scheduler", "hpcgender", *arguments, cwd=tmp_path, **environment)

    return hpcgender


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """A directory of real UTKFace images; the test is skipped where there is none."""
    images = REAL_DATA / "utkface" / "images"
    if not images.is_dir():
        pytest.skip(f"no real faces in {images}: set HPCGENDER_TEST_DATA to a directory that has utkface/images")
    return images
