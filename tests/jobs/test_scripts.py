"""The job scripts that pack, train, evaluate and draw heat maps, as `hpcgender scripts` copies them, run with bash."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcgender.commands.train import TrainConfig
from hpcgender.launch.scripts import scripts
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.conftest import REPOSITORY, Run

JOBS = REPOSITORY / "jobs"
INSTALLER = "install.sh"
SMALL = ("--model", "se_resnet18", "--image-size", "32", "--batch-size", "16", "--epochs", "1", "--lr", "0.02")
BEST = Path("runs/se_resnet152/checkpoints/best.pt")


def outside() -> dict[str, str]:
    """This environment without a scheduler's job around it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SGE_", "SLURM_", "NSLOTS"))}


def start(project: Path, script: str, *options: str) -> str:
    """The output of a script of the project, which is to succeed."""
    command = ["bash", str(project / "jobs" / script), *options]
    environ = outside() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with copies of the scripts, and 160 drawn faces packed by pack_morph.sh and for training."""
    project = tmp_path_factory.mktemp("project")
    copied = run("hpcgender", "scripts", project / "jobs")
    assert copied.returncode == 0, copied.stderr
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


def test_all_scripts_but_the_installer_and_all_profiles_are_copied_once(run: Run, tmp_path: Path) -> None:
    """Given again, nothing changes; a file that is another, or a directory in its place, is left."""
    for _ in range(2):
        copied = run("hpcgender", "scripts", "jobs", cwd=tmp_path)
        assert copied.returncode == 0, copied.stderr
        assert copied.stdout.splitlines()[1] == f"they run in {tmp_path}: data, runs and logs are there"
    expected = {path.relative_to(JOBS) for pattern in ("*.sh", "sites/*.toml") for path in JOBS.glob(pattern)}
    found = {path.relative_to(tmp_path / "jobs") for path in (tmp_path / "jobs").rglob("*") if path.is_file()}
    assert found == expected - {Path(INSTALLER)}
    assert (tmp_path / "logs").is_dir()
    mine = tmp_path / "jobs" / "train_resnet50.sh"
    mine.write_text(f"{mine.read_text()}# mine\n")
    (tmp_path / "jobs" / "demo.sh").unlink()
    refused = run("hpcgender", "scripts", "jobs", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    says = "jobs/train_resnet50.sh is there already, and is another: remove it, or give another directory"
    assert refused.stderr == f"hpcgender: {says}\n"
    assert mine.read_text().endswith("# mine\n")
    assert not (tmp_path / "jobs" / "demo.sh").exists()


def test_an_environment_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no python beside .*: install hpcgender in an environment of its own$"):
        scripts(tmp_path)


@pytest.mark.parametrize("variable", ["SLURM_SUBMIT_DIR", "SGE_O_WORKDIR"])
def test_a_schedulers_copy_of_a_script_runs_where_it_was_submitted(variable: str, tmp_path: Path) -> None:
    spool, project, programs = (tmp_path / name for name in ("spool", "project", "bin"))
    for directory in (spool, project, programs):
        directory.mkdir()
    shutil.copy(JOBS / "train_resnet50.sh", spool / "job_script")
    (programs / "python").write_text("#!/bin/bash\npwd\n")
    (programs / "python").chmod(0o755)
    environ = outside() | {variable: str(project), "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", spool / "job_script"], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f"{project}\n"
