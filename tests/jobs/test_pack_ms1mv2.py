"""`jobs/pack_ms1mv2.sh` as the tasks of an array job see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shard_tools.manifest import read_manifest
from tests.shard_tools.pictures import digest
from tests.shard_tools.record_file import write_ms1mv2

SCRIPT = Path(__file__).parents[2] / "jobs" / "pack_ms1mv2.sh"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's directory with the script and a small MS1MV2: 8 identities of 4 pictures, one of unknown gender."""
    (tmp_path / "jobs" / "sites").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "jobs")
    write_ms1mv2(tmp_path / "data" / "faces_emore")
    return tmp_path


def pack(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    names = ("SGE_", "SLURM_", "NSLOTS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    return subprocess.run(
        ["bash", project / "jobs" / "pack_ms1mv2.sh", *arguments],
        env={**clean, "PATH": path, **variables},
        check=False,
        capture_output=True,
        text=True,
    )


def shards(project: Path) -> dict[str, str]:
    """What was packed, without the records of the jobs that did it."""
    files = digest(project / "data" / "ms1mv2")
    return {name: content for name, content in files.items() if not name.startswith("submissions/")}


def test_it_packs_everything_in_one_job(project: Path) -> None:
    done = pack(project)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(project / "data" / "ms1mv2")
    assert sum(split.samples for split in manifest.splits.values()) == 28
    assert "unknown gender: 4 of 32 images, left out" in done.stdout


@pytest.mark.parametrize(
    ("number", "last"), [("SGE_TASK_ID", "SGE_TASK_LAST"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MAX")]
)
def test_the_tasks_of_an_array_job_pack_their_parts(project: Path, number: str, last: str) -> None:
    assert pack(project, SGE_TASK_ID="undefined").returncode == 0  # of a job that is no array
    whole = shards(project)
    shutil.rmtree(project / "data" / "ms1mv2")
    for task in ("2", "1"):
        refused = pack(project, "finalize")
        assert refused.returncode == 2
        done = pack(project, **{number: task, last: "2"})
        assert done.returncode == 0, done.stderr
        assert f"looked at part {task} of 2" in done.stdout
    done = pack(project, "finalize", NSLOTS="2")
    assert done.returncode == 0, done.stderr
    assert shards(project) == whole


def test_options_may_follow(project: Path) -> None:
    done = pack(project, "--unknown", "keep", "--val", "0", "--test", "0")
    assert done.returncode == 0, done.stderr
    assert read_manifest(project / "data" / "ms1mv2").splits["train"].samples == 32
