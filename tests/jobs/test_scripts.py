"""The scripts of `jobs/` that no cluster of the tests runs, started with bash: pack MORPH, train, evaluate."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from shard_tools.manifest import read_manifest
from tests.conftest import Run

JOBS = Path(__file__).parents[2] / "jobs"
SMALL = ("--model", "se_resnet18", "--image-size", "32", "--batch-size", "16", "--epochs", "1", "--lr", "0.02")


def start(project: Path, script: str, *options: str) -> str:
    """What a script of the project says, which is to succeed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SGE_", "SLURM_", "NSLOTS"))}
    environ = {**clean, "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(project / "jobs" / script), *options]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_scripts_pack_train_and_evaluate_where_they_are_started(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hpcgender").mkdir()
    (tmp_path / "jobs").mkdir()
    for script in JOBS.glob("*.sh"):
        shutil.copy(script, tmp_path / "jobs")
    drawn = run("shard_tools", "synthetic", "--out", tmp_path / "data" / "MORPH", "--count", 96, "--size", 32)
    assert drawn.returncode == 0, drawn.stderr
    start(tmp_path, "pack_morph.sh")
    assert read_manifest(tmp_path / "data" / "morph").split("test").samples == 96
    packed = run(
        "shard_tools", "pack", "morph", "--images", tmp_path / "data" / "MORPH", "--out", tmp_path / "data" / "shards"
    )
    assert packed.returncode == 0, packed.stderr
    for name in ("resnet50", "resnet101"):
        said = start(tmp_path, f"train_{name}.sh", *SMALL)
        assert "epoch 1/1 | train loss " in said
        best = f"runs/{name}/checkpoints/best.pt"
        assert (tmp_path / best).is_file()
    assert "data/morph: 96 images of " in start(tmp_path, "eval_morph.sh", "--checkpoint", best)
