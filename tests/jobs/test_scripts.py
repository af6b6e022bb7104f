"""The scripts of `jobs/` that pack MORPH, train, evaluate and draw heat maps, started with bash on one machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgender.commands.train import TrainConfig
from shard_tools.base.commands import parse_options
from shard_tools.manifest import read_manifest
from tests.conftest import Run

JOBS = Path(__file__).parents[2] / "jobs"
SMALL = ("--model", "se_resnet18", "--image-size", "32", "--batch-size", "16", "--epochs", "1", "--lr", "0.02")
BEST = Path("runs/se_resnet152/checkpoints/best.pt")


def start(project: Path, script: str, *options: str) -> str:
    """The output of a script of the project, which is to succeed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SGE_", "SLURM_", "NSLOTS"))}
    environ = {**clean, "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(project / "jobs" / script), *options]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's directory with the scripts, and 160 drawn faces packed by pack_morph.sh and for training."""
    project = tmp_path_factory.mktemp("project")
    (project / "hpcgender").mkdir()
    (project / "jobs").mkdir()
    for script in JOBS.glob("*.sh"):
        shutil.copy(script, project / "jobs")
    images = project / "data" / "MORPH"
    drawn = run("shard_tools", "synthetic", "--out", images, "--count", 160, "--size", 32)
    assert drawn.returncode == 0, drawn.stderr
    packed = run("shard_tools", "pack", "morph", "--images", images, "--out", project / "data" / "shards")
    assert packed.returncode == 0, packed.stderr
    start(project, "pack_morph.sh")
    return project


@pytest.fixture(scope="module")
def trained(project: Path) -> str:
    """The output of train_resnet152.sh, whose checkpoint the scripts after it read."""
    return start(project, "train_resnet152.sh", *SMALL)


def test_pack_morph_packs_all_for_testing(project: Path) -> None:
    assert read_manifest(project / "data" / "morph").split("test").samples == 160


def test_train_resnet152_trains_into_the_run_of_its_preset(project: Path, trained: str) -> None:
    assert "epoch 1/1 | train loss " in trained
    assert (project / BEST).is_file()


@pytest.mark.parametrize("layers", [50, 101])
def test_train_resnet50_and_101_train_into_the_runs_of_their_presets(project: Path, layers: int) -> None:
    assert "epoch 1/1 | train loss " in start(project, f"train_resnet{layers}.sh", *SMALL)
    assert (project / "runs" / f"se_resnet{layers}" / "checkpoints" / "best.pt").is_file()


@pytest.mark.parametrize("layers", [50, 101, 152])
def test_a_script_and_the_preset_of_its_name_share_no_run(project: Path, layers: int, tmp_path: Path) -> None:
    printed = tmp_path / "printed.toml"
    printed.write_text(start(project, f"train_resnet{layers}.sh", "--print-config"))
    script, plain = (
        parse_options(TrainConfig, "hpcgender train", options)
        for options in (["--config", str(printed)], ["--preset", f"resnet{layers}"])
    )
    assert isinstance(script, TrainConfig)
    assert isinstance(plain, TrainConfig)
    assert (script.model, script.schedule) == (f"se_resnet{layers}", "cosine")
    assert (plain.model, plain.schedule) == (f"resnet{layers}", "step")
    assert script.run_dir.name == f"se_resnet{layers}"
    assert plain.run_dir.name == f"resnet{layers}"


@pytest.mark.usefixtures("trained")
def test_eval_morph_measures_what_train_resnet152_saved(project: Path) -> None:
    assert "data/morph: 160 images of " in start(project, "eval_morph.sh")


@pytest.mark.usefixtures("trained")
def test_cam_morph_explains_what_train_resnet152_saved(project: Path) -> None:
    start(project, "cam_morph.sh")
    assert (project / "runs/se_resnet152/cams/morph-test/sheet.png").is_file()
