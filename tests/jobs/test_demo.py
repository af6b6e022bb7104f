"""The README's first command on few faces and one epoch, in a directory of its own that shares this one's code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def demo(where: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "jobs/demo.sh", *options], cwd=where, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory that looks like a checkout in which everything is installed, and nothing has run yet."""
    if not (REPOSITORY / ".venv" / "installed-test").exists():
        pytest.skip("the project is not installed in .venv: bash tests/run.sh does that")
    pins = (path.name for path in REPOSITORY.glob("constraints*.txt"))
    for name in (".venv", "hpcgender", "jobs", "pyproject.toml", "shard_tools", *pins):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


@pytest.mark.slow
def test_the_demo_runs_to_its_end_and_uses_again_what_is_there(checkout: Path) -> None:
    small = ("--count", "240", "--epochs", "1")
    first = demo(checkout, *small)
    assert first.returncode == 0, first.stderr
    assert "epoch 1/1 | train loss" in first.stdout
    assert re.search(r"test of \S*data/demo: \d+ images of .*\naccuracy ", first.stdout)
    assert re.search(r"\d+ heat maps \(cam, fp32\) of 4x4 cells", first.stdout)
    listed = first.stdout.partition("Results:")[2]
    paths = [word for line in listed.splitlines() for word in line.split()[:1]]
    assert len(paths) == 6
    assert all((checkout / path).exists() for path in paths)
    assert (checkout / listed.split("look at ")[1].split()[0]).exists()

    faces = sorted((checkout / "data" / "demo-faces").iterdir())
    times = [path.stat().st_mtime_ns for path in faces]
    again = demo(checkout, *small)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("exists and is used again") == 2
    assert "runs/demo is finished: 1 epoch," in again.stdout
    assert [path.stat().st_mtime_ns for path in faces] == times


def test_the_demo_wants_images_that_are_there(checkout: Path) -> None:
    done = demo(checkout, "--images", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "demo: no directory nowhere: give the one with the images as --images\n"
    assert not (checkout / "data").exists()


def test_the_demo_says_what_it_takes(checkout: Path) -> None:
    asked, wrong = demo(checkout, "--help"), demo(checkout, "--image")
    assert (asked.returncode, wrong.returncode) == (0, 2)
    assert "bash jobs/demo.sh --images DIR" in asked.stdout
    assert wrong.stderr == asked.stdout
