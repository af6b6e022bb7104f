"""What `jobs/install.sh` installs for which driver and GPUs, seen by --dry-run with a stand-in for nvidia-smi."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CUDA12 = "constraints-cuda12.txt .[cuda12]"
CUDA13 = "constraints-cuda13.txt .[cuda13]"
CU126 = "--extra-index-url https://download.pytorch.org/whl/cu126"

Install = Callable[..., subprocess.CompletedProcess[str]]


# nvidia-smi does not know every field in every driver, and fails where it is asked for one that it does not know.
STAND_IN = """#!/bin/bash
answer={answer}
fields() {{ head -1 | tr -cd , | wc -c; }}
[ -n "$answer" ] || exit 6
[ "${{0##*/}}" != nvidia-smi ] || [ "$(fields <<<"$1")" = "$(fields <<<"$answer")" ] || exit 2
echo "$answer"
"""


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """`install(*options, uname=...)`: a checkout's `jobs/install.sh --dry-run`, where programs say what is given.

    nvidia-smi says that there are no GPUs, unless it is given what to say.
    """
    (tmp_path / "jobs").mkdir()
    for path in (REPOSITORY / "jobs" / "install.sh", REPOSITORY / "pyproject.toml", *REPOSITORY.glob("constraints*")):
        shutil.copy(path, tmp_path / path.relative_to(REPOSITORY))
    programs = tmp_path / "bin"
    programs.mkdir()

    def install(
        *options: str, gpus: str = "", uname: str = "Linux x86_64", getconf: str = "glibc 2.36"
    ) -> subprocess.CompletedProcess[str]:
        for name, answer in (("nvidia-smi", gpus), ("uname", uname), ("getconf", getconf)):
            (programs / name).write_text(STAND_IN.format(answer=shlex.quote(answer)))
            (programs / name).chmod(0o755)
        path = os.pathsep.join((str(programs), os.environ["PATH"]))
        environ = {**os.environ, "PATH": path, "PYTHON": sys.executable}
        command = ["bash", "jobs/install.sh", "--dry-run", *options]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    return install


def installed(done: subprocess.CompletedProcess[str]) -> str:
    """What pip is told, but for what it always is: constraints, options, and extras."""
    assert done.returncode == 0, done.stderr
    pip, *words = shlex.split(done.stdout)
    always = ("install", "--quiet", "--disable-pip-version-check", "--constraint", "--editable")
    assert pip == ".venv/bin/pip"
    return " ".join(word for word in words if word not in always)


@pytest.mark.parametrize(
    ("gpus", "installs"),
    [
        ("580.65.06, 7.5", CUDA13),  # Turing
        ("580.95.05, 9.0", CUDA13),
        ("595.12, 12.0\n595.12, 8.6", CUDA13),
        ("610.43.02, 10.3", CUDA13),
        ("580.95.05, 10.0\n580.95.05, 8.0", CUDA13),
        ("580.95.05, 7.0", CUDA12),  # Volta
        ("580.95.05, 9.0\n580.95.05, 7.0", CUDA12),
        ("575.57.08, 12.0", CUDA12),
        ("535.230.02, 7.0", CUDA12),
        ("525.60.13, 8.0", CUDA12),
    ],
)
def test_what_fits_driver_and_oldest_gpu_is_installed(install: Install, gpus: str, installs: str) -> None:
    done = install(gpus=gpus)
    assert installed(done) == installs
    oldest = min(gpus.splitlines(), key=lambda gpu: float(gpu.split(", ")[1]))
    driver, capability = oldest.split(", ")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"driver {driver}, compute capability {capability}: ")


@pytest.mark.parametrize(
    ("gpus", "says"),
    [
        ("470.256.02, 3.7", r"driver 470\.256\.02 is too old for today's PyTorch, which needs 525"),
        ("470.256.02", r"driver 470\.256\.02 is too old"),  # it has no compute_cap
        ("535.230.02, 6.1", rf"6\.1, older than Volta, .* bash jobs/install\.sh {CU126}; or give --cpu"),
        ("580.95.05, 5.2\n580.95.05, 8.6", r"5\.2, older than Volta"),
        ("580.95.05, [N/A]", r"does not name this GPU's compute capability: give --cuda 12"),
        ("Unable to determine the device handle, [Unknown Error]", r"names no driver but says 'Unable"),
    ],
)
def test_where_nothing_fits_one_line_says_what_to_type(install: Install, gpus: str, says: str) -> None:
    done = install(gpus=gpus)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.search(says, line), line


def test_an_older_gpu_has_its_pytorch_from_another_index(install: Install) -> None:
    assert installed(install(*CU126.split(), gpus="535.230.02, 6.1")) == f"constraints-cuda12.txt {CU126} .[cuda12]"


@pytest.mark.parametrize(
    ("options", "installs", "says"),
    [
        ("", CUDA13, r"no GPU here: PyTorch for CUDA 13, .* bash jobs/install\.sh --cuda 12$"),
        ("test", "constraints-cuda13.txt .[cuda13,test]", "no GPU here"),
        ("--cpu", CUDA13, r"a smaller one .* --cpu --extra-index-url \S+/cpu$"),
        ("--cpu --extra-index-url=URL", "constraints-cuda13.txt --extra-index-url URL .[cuda13]", ""),
        ("--cuda 13", CUDA13, ""),
        ("--cuda=12 test", "constraints-cuda12.txt .[cuda12,test]", ""),
    ],
)
def test_without_a_gpu_it_is_named(install: Install, options: str, installs: str, says: str) -> None:
    done = install(*options.split())
    assert installed(done) == installs
    assert len(done.stderr.splitlines()) == bool(says)
    assert re.search(says, done.stderr.strip())


def test_what_is_named_goes_before_what_is_here(install: Install) -> None:
    assert installed(install("--cuda", "12", gpus="580.95.05, 9.0")) == CUDA12


def test_what_was_named_holds_for_later_calls(install: Install, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "choice").write_text(f"12 {CU126}\n")
    assert installed(install("test", gpus="580.95.05, 9.0")) == f"constraints-cuda12.txt {CU126} .[cuda12,test]"


@pytest.mark.parametrize(
    ("uname", "options", "installs"),
    [
        ("Linux aarch64", "", CUDA13),
        ("Linux aarch64", "--cuda 12 --index-url URL", "constraints-cuda12.txt --index-url URL .[cuda12]"),
        ("Darwin arm64", "--cpu", "constraints-cuda13.txt ."),
        ("Darwin arm64", "test --cpu", "constraints-cuda13.txt .[test]"),
    ],
)
def test_dali_is_installed_where_it_exists(install: Install, uname: str, options: str, installs: str) -> None:
    done = install(*options.split(), uname=uname)
    assert installed(done) == installs
    assert ("there is no NVIDIA DALI" in done.stderr) == (uname == "Darwin arm64")


@pytest.mark.parametrize(
    ("options", "machine", "says"),
    [
        ("--cuda 12", {"uname": "Linux aarch64"}, r"only for x86-64.*--cuda 12 --extra-index-url \S+/cu128$"),
        ("--cuda 13", {"getconf": "glibc 2.17"}, "glibc 2.17 is older than PyTorch needs, 2.28: use a container"),
        ("--cuda 11", {}, "--cuda 11: there is --cuda 12 and --cuda 13"),
        ("--cuda", {}, "there is --cuda 12 and --cuda 13"),
        ("--index-url", {}, "--index-url needs a URL"),
        ("--gpu", {}, "no option --gpu: bash jobs/install.sh --help"),
    ],
)
def test_what_cannot_be_is_refused(install: Install, options: str, machine: dict[str, str], says: str) -> None:
    done = install(*options.split(), **machine)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(says, done.stderr.strip()), done.stderr


def test_both_recipes_of_an_image_do_the_same() -> None:
    recipe, dockerfile = ((REPOSITORY / "jobs" / name).read_text() for name in ("container.def", "Dockerfile"))
    copied = {tuple(line.split()) for line in section(recipe, "files")}
    assert all((REPOSITORY / source).exists() for source, _ in copied)
    files, *directories = re.findall(r"^COPY (.+) (\S+)$", dockerfile, re.MULTILINE)
    assert copied == {*directories, *((name, files[1] + name) for name in files[0].split())}
    run = "\n".join(re.findall(r"^RUN (.+)$", dockerfile.replace("\\\n", ""), re.MULTILINE))
    steps = [" ".join(step.split()) for step in re.split(r"&&|\n", run.replace("$cuda", "{{ cuda }}"))]
    assert steps == section(recipe, "post")


def section(recipe: str, name: str) -> list[str]:
    """The lines of a section of an Apptainer recipe."""
    return [line.strip() for line in recipe.partition(f"\n%{name}\n")[2].partition("\n\n")[0].splitlines()]


def test_each_cuda_has_its_own_pins() -> None:
    pins = {cuda: (REPOSITORY / f"constraints-cuda{cuda}.txt").read_text() for cuda in (12, 13)}
    assert all("\n-c constraints.txt\n" in text for text in pins.values())
    assert re.search(r"^torch==2\.10\.", pins[12], re.MULTILINE)  # the last for CUDA 12 on PyPI
    common = {line.partition("==")[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    assert not common & {line.partition("==")[0] for text in pins.values() for line in text.splitlines()}
