"""sdist and wheel, as `hatchling` builds them: the wheel, in an environment of its own, works outside any clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcgender.checkpoint import read_checkpoint
from hpcgender.version import __version__
from tests.conftest import REPOSITORY

PACKAGES = ("hpcgender", "shard_tools", "jobs")
OF_A_CLONE = {"jobs/install.sh", "jobs/Dockerfile", "jobs/container.def"}
"""What installs a clone, and so is in no wheel."""
SMALL = ("--model", "compact", "--image-size", "32", "--batch-size", "16", "--epochs", "1", "--backend", "torchvision")


def done(command: Sequence[str | Path], cwd: Path, environ: dict[str, str] | None = None) -> str:
    """What a command prints, which is to succeed."""
    ended = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def tracked(*directories: str) -> set[str]:
    """The files of the repository below directories, also those that are not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *directories]
    return {name for name in done(command, REPOSITORY).splitlines() if (REPOSITORY / name).exists()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    done([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out], REPOSITORY)
    return out / f"hpcgender-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built of the sdist."""
    out = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as tar:
        tar.extractall(out, filter="data")
    source = out / f"hpcgender-{__version__}"
    done([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], source)
    return out / f"hpcgender-{__version__}-py3-none-any.whl"


@dataclass(frozen=True)
class Installed:
    """A project's directory, outside any clone, and an environment that has the wheel."""

    project: Path
    programs: Path
    environ: dict[str, str]

    def run(self, *words: str) -> str:
        """What a program of the environment, or of the system, prints in the project's directory."""
        own = self.programs / words[0]
        return done([own if own.exists() else words[0], *words[1:]], self.project, self.environ)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without its dependencies, which the environment sees where these tests have them.

    Environment and project are within somebody's own git checkout."""
    root = tmp_path_factory.mktemp("installed")
    done([sys.executable, "-m", "venv", "--without-pip", root / "env"], root)
    programs = root / "env" / "bin"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        programs / "python",
    ]
    done([*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel], root)
    packages = done([programs / "python", "-c", "import site; print(site.getsitepackages()[0])"], root).strip()
    # A directory in a .pth file is only searched: an editable installation there does not come first.
    sites = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(packages, "dependencies.pth").write_text("".join(f"{path}\n" for path in sites))
    (root / "project").mkdir()
    for words in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m theirs"):
        done(["git", *words.split()], root)
    inherited = ("PYTHONPATH", "SGE_", "SLURM_", "NSLOTS", "VIRTUAL_ENV")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    return Installed(root / "project", programs, environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def trained(installed: Installed) -> Installed:
    """With drawn faces, packed, and a run by a copied job script."""
    installed.run("shard-tools", "synthetic", "--out", "images", "--count", "120", "--size", "32")
    installed.run("shard-tools", "pack", "morph", "--images", "images", "--out", "data/shards")
    installed.run("hpcgender", "scripts", "jobs")
    said = installed.run("bash", "jobs/train_resnet50.sh", *SMALL, "--name", "small")
    assert "epoch 1/1 | train loss " in said
    return installed


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tracked(*PACKAGES) - OF_A_CLONE


def test_the_sdist_has_what_tests_and_documentation_need_and_nothing_else(sdist: Path) -> None:
    root = f"hpcgender-{__version__}/"
    with tarfile.open(sdist) as tar:
        names = {member.name.removeprefix(root) for member in tar if member.isfile()}
    first = {name for name in names if "/" not in name} - {"PKG-INFO", ".gitignore"}
    assert first == {name for name in tracked() if "/" not in name} - {".gitignore"}
    assert names - first - {"PKG-INFO", ".gitignore"} == tracked(*PACKAGES, "docs", "tests")


def test_its_commands_need_no_clone(trained: Installed) -> None:
    assert trained.run("hpcgender", "--help").startswith("usage: hpcgender COMMAND")
    assert trained.run("shard-tools", "--help").startswith("usage: shard-tools COMMAND")
    assert 'model = "vgg16"' in trained.run("hpcgender", "train", "--preset", "vgg16", "--print-config")
    assert "compact" in trained.run("hpcgender", "models", "--filter", "comp*")


def test_extras_are_installed_without_a_clone(installed: Installed) -> None:
    advised = installed.run("python", "-c", "from shard_tools.base.extras import pip_install as p; print(p('align'))")
    assert advised == f"{installed.programs / 'python'} -m pip install 'hpcgender[align]'\n"


SITES = {"local": "1 node (", "notre-dame-crc": " -q gpu ", "slurm": "#SBATCH"}


@pytest.mark.parametrize(("site", "says"), SITES.items())
def test_its_launcher_and_its_profiles_need_no_clone(trained: Installed, site: str, says: str) -> None:
    launch = ("python", "-m", "hpcgender.launch", "--site", site, "--dry-run", "--")
    assert says in trained.run(*launch, "train", *SMALL, "--name", "new")


def test_its_pages_need_no_clone(trained: Installed) -> None:
    trained.run("hpcgender", "report", "small", "--out", "report.html")
    trained.run("shard-tools", "inspect", "data/shards", "--html", "data.html")
    for page in ("report.html", "data.html"):
        assert "</html>" in (trained.project / page).read_text(encoding="utf-8")


def test_a_checkout_around_it_is_not_taken_for_its_own(trained: Installed) -> None:
    run = trained.project / "runs" / "small"
    (record,) = run.glob("submissions/*/submission.json")
    assert json.loads(record.read_text(encoding="utf-8"))["revision"] == ""
    assert read_checkpoint(run / "checkpoints" / "best.pt")["revision"] == ""
