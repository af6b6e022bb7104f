"""The clusters of the tests: real Slurm and Grid Engine daemons with three nodes each, for as long as tests run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.cluster import plugin
from tests.cluster.cluster import Cluster
from tests.cluster.sge import GridEngine, LateGridEngine
from tests.cluster.slurm import Slurm
from tests.cluster.training import Training, train
from tests.conftest import Run

Outcome = TypeVar("Outcome")
Pools = Mapping[Cluster, ThreadPoolExecutor]
Outcomes = Callable[[str], Any]


class OnBoth(Protocol):
    """Runs a scenario on a Slurm and a Grid Engine side by side; returns its outcome, or error, for each by name."""

    def __call__(
        self, scenario: Callable[[Cluster], Outcome], *, late: bool = False
    ) -> Mapping[str, Future[Outcome]]: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("cluster")
    items.sort(key=lambda item: item.path.name != "test_interruptions.py")  # the longest first, beside the plugin's


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


@pytest.fixture(scope="package")
def late() -> Iterator[Cluster]:
    """Another Grid Engine, whose accounting is late."""
    yield from bring_up(LateGridEngine)


@pytest.fixture(params=["slurm", "sge"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each of the two in turn."""
    found: Cluster = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="package")
def pools(slurm: Cluster, sge: Cluster, late: Cluster) -> Iterator[Pools]:
    """Where the scenarios of each cluster wait: it has one at a time.

    The nodes of all clusters are this machine, and most of a scenario is waiting, so clusters work side by side.
    """
    made = {cluster: ThreadPoolExecutor(1) for cluster in (slurm, sge, late)}
    yield made
    for pool in made.values():
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="package")
def on_both(slurm: Cluster, sge: Cluster, late: Cluster, pools: Pools) -> OnBoth:
    def start(scenario: Callable[[Cluster], Outcome], *, late: bool = False) -> Mapping[str, Future[Outcome]]:
        clusters = slurm, other if late else sge
        return {cluster.name: pools[cluster].submit(scenario, cluster) for cluster in clusters}

    other = late
    return start


@pytest.fixture(scope="package")
def data(
    slurm: Cluster, sge: Cluster, late: Cluster, tmp_path_factory: pytest.TempPathFactory, run: Run
) -> Mapping[Cluster, Path]:
    """A few drawn faces, packed, where the users of each cluster can read them."""
    folder = tmp_path_factory.mktemp("few")
    for command in (
        ("synthetic", "--out", folder / "images", "--count", 96, "--size", 32, "--seed", 7),
        ("pack", "morph", "--images", folder / "images", "--out", folder / "shards"),
    ):
        done = run("shard_tools", *command)
        assert done.returncode == 0, done.stderr
    return {
        cluster: Path(shutil.copytree(folder / "shards", cluster.directory / "data" / "faces"))
        for cluster in (slurm, sge, late)
    }


@pytest.fixture(scope="package")
def trained(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[Training]]:
    """On each cluster a whole training on two nodes, by `jobs/train_resnet152.sh` as it stands."""
    return on_both(lambda cluster: train(cluster, data[cluster]))


@pytest.fixture(scope="package")
def outcomes(late: Cluster, pools: Pools) -> Outcomes:
    """What came of each scenario of the plugin's program, and of what follows them."""
    futures = plugin.start(late, late.project(), pools[late])
    return lambda name: futures[name].result()


@pytest.fixture(scope="package", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """The plugin's scenarios from the start, beside all others: they are nearly all waiting."""
    if any("outcomes" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("outcomes")
