"""The clusters of the tests: real Slurm and Grid Engine daemons with three nodes each, for as long as tests run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.sge import GridEngine
from tests.cluster.slurm import Slurm
from tests.cluster.training import Training, train
from tests.conftest import Run

Outcome = TypeVar("Outcome")
OnBoth = Callable[[Callable[[Cluster], Outcome]], Mapping[str, "Future[Outcome]"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("cluster")


def bring_up(kind: type[Cluster]) -> Iterator[Cluster]:
    """A running cluster; where there can be none, the test is skipped, or fails if CI=true."""
    needed = ("unshare", "nsenter", "setpriv", "ip", *kind.programs)
    missing = [program for program in needed if not shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin")]
    because = "only root can make test hosts" if os.getuid() else f"no {', '.join(missing)}" if missing else ""
    if because:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"{kind.name} cannot run here: {because}: see tests/cluster/install.sh")
    with kind(Path(tempfile.mkdtemp(prefix=f"cluster-{kind.name}-"))) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def slurm() -> Iterator[Cluster]:
    """A running Slurm with three nodes."""
    yield from bring_up(Slurm)


@pytest.fixture(scope="package")
def sge() -> Iterator[Cluster]:
    """A running Grid Engine with three nodes."""
    yield from bring_up(GridEngine)


@pytest.fixture(params=["slurm", "sge"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each of the two in turn."""
    found: Cluster = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="package")
def on_both(slurm: Cluster, sge: Cluster) -> Iterator[OnBoth[Outcome]]:
    """Runs a scenario on both clusters side by side, and returns its outcome, or error, for each by name.

    The nodes of both are this machine, and most of a scenario is waiting. A cluster has one scenario at a time.
    """
    pools = {cluster: ThreadPoolExecutor(1) for cluster in (slurm, sge)}

    def start(scenario: Callable[[Cluster], Outcome]) -> Mapping[str, Future[Outcome]]:
        return {cluster.name: pool.submit(scenario, cluster) for cluster, pool in pools.items()}

    yield start
    for pool in pools.values():
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="package")
def data(slurm: Cluster, sge: Cluster, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Mapping[str, Path]:
    """A few drawn faces, packed, where the users of each cluster can read them."""
    folder = tmp_path_factory.mktemp("few")
    for command in (
        ("synthetic", "--out", folder / "images", "--count", 96, "--size", 32, "--seed", 7),
        ("pack", "morph", "--images", folder / "images", "--out", folder / "shards"),
    ):
        done = run("shard_tools", *command)
        assert done.returncode == 0, done.stderr
    return {
        cluster.name: Path(shutil.copytree(folder / "shards", cluster.directory / "data" / "faces"))
        for cluster in (slurm, sge)
    }


@pytest.fixture(scope="package")
def trained(on_both: OnBoth[Training], data: Mapping[str, Path]) -> Mapping[str, Future[Training]]:
    """On each cluster a whole training on both nodes, by `jobs/train_resnet152.sh` as it stands."""
    return on_both(lambda cluster: train(cluster, data[cluster.name]))
