"""Ranks in a container: a training on two nodes inside Charliecloud, started by the site's container command."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.hosts import REPOSITORY
from tests.cluster.training import OPTIONS, launch, read_log

VENV = "/opt/hpcgender/.venv"
"""Where the image has its packages, as that of jobs/Dockerfile; no host has anything there."""
LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
SHARED = ("dev", "proc", "sys", "tmp", "etc", "usr")


def container(cluster: Cluster) -> str:
    """The command that starts a container of a minimal image: directories to mount on, nothing else.

    Charliecloud itself mounts the host's /dev, /proc, /sys and /tmp. The command mounts this machine's programs, its
    Python with the packages, and the project with its data, if they lie elsewhere.
    """
    image = cluster.directory / "image"
    places = {Path("/usr"): "/usr", Path(sys.prefix).resolve(): VENV}
    for path in (Path(sys.base_prefix), REPOSITORY, cluster.directory):
        if not any(path.is_relative_to(held) for held in (Path("/tmp"), *places)):
            places[path] = str(path)
    for name in (*SHARED, *(place.lstrip("/") for place in places.values())):
        (image / name).mkdir(parents=True, exist_ok=True)
    for name, target in LINKS.items():
        (image / name).symlink_to(target)
    for name in ("hosts", "passwd", "group"):  # Charliecloud mounts its own there
        (image / "etc" / name).touch()
    shutil.copy("/etc/ld.so.cache", image / "etc")
    binds = " ".join(f"--bind={path}:{place}" for path, place in places.items())
    return f"ch-run {binds} --cd={{directory}} {image} --"


def begin(rigs: Rigs) -> None:
    """On Slurm: the same command starts the agents on both."""
    if shutil.which("ch-run", path="/usr/bin:/bin"):
        rigs.start("contained", contain, second=True, only="slurm")


def test_ranks_train_in_a_container_on_two_nodes(rigs: Rigs) -> None:
    if "contained" not in rigs.started:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("no ch-run: see tests/cluster/install.sh")
    rigs.all("contained")


def contain(cluster: Cluster, data: Path) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(
        f'{cluster.site}container = "{container(cluster)}"\ncontainer_python = "{VENV}/bin/python"\n'
    )
    assert not Path(VENV).exists()
    options = ("--data", data, *OPTIONS, "--epochs", 1, "--name", "contained")
    (job,) = launch(cluster, project, "--nodes", 2, "--", "train", *options)
    end = cluster.wait(job)
    log = read_log(project, job)
    assert end.code == 0, log
    assert "train on 2 nodes" in log
    assert re.search(r"epoch 1/1 \| train loss", log)
    assert (project / "runs" / "contained" / "checkpoints" / "best.pt").exists()
