"""The clusters of the tests: real Slurm and Grid Engine daemons with three nodes each, for as long as tests run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.sge import GridEngine, LateGridEngine
from tests.cluster.slurm import ForgetfulSlurm, Slurm
from tests.cluster.training import train
from tests.conftest import Run

Outcomes = Callable[[str], Any]
ORDER = ("plugin", "interruptions", "submission", "training", "study", "doctor", "status", "container")
"""The modules that have scenarios, as they begin: the plugin's run side by side before all others of their cluster."""


class Rigs:
    """The clusters, two of each kind, and what is under way on them: each has one scenario at a time.

    The nodes of all are this machine, and most of a scenario is waiting, so they work side by side.
    """

    def __init__(
        self, first: Sequence[Cluster], second: Sequence[Cluster], data: Mapping[Cluster, Path], faces: Path
    ) -> None:
        self.faces = faces
        self.started: dict[str, dict[str, Future[Any]]] = {}
        self.late = second[-1]
        self._pairs, self._data = (first, second), data
        self._pools = {cluster: ThreadPoolExecutor(1) for cluster in (*first, *second)}

    def start(
        self, name: str, scenario: Callable[[Cluster, Path], object], *, second: bool = False, only: str = ""
    ) -> None:
        """Lets a scenario, a function of a cluster and its data, run on a Slurm and a Grid Engine when they are free.

        `second`: on the other two; `only`: on one of them, by its name.
        """
        for cluster in self._pairs[second]:
            if only in ("", cluster.name):
                future = self._pools[cluster].submit(scenario, cluster, self._data[cluster])
                self.started.setdefault(name, {})[cluster.name] = future

    def result(self, name: str, cluster: Cluster) -> Any:
        """What came of a scenario on a cluster, or on the other of its kind; waits for it."""
        return self.started[name][cluster.name].result()

    def all(self, name: str) -> dict[str, Any]:
        """What came of a scenario on each cluster by its name; waits for it."""
        return {kind: future.result() for kind, future in self.started[name].items()}

    def pool(self, cluster: Cluster) -> ThreadPoolExecutor:
        """Where the scenarios of a cluster wait."""
        return self._pools[cluster]

    def close(self) -> None:
        """Starts nothing more, and waits for what is under way."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("cluster")
            item.add_marker(pytest.mark.timeout(4500))  # the first one waits for all scenarios
    last = ("test_interruptions.py", "test_container.py")  # the longest, and what begins last: they are under way
    items.sort(key=lambda item: last.index(item.path.name) if item.path.name in last else -1)


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


@pytest.fixture(scope="package")
def forgetful() -> Iterator[Cluster]:
    """Another Slurm, which knows little of ended jobs."""
    yield from bring_up(ForgetfulSlurm)


@pytest.fixture(params=["slurm", "sge"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each of the two in turn."""
    found: Cluster = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="package")
def data(
    slurm: Cluster, sge: Cluster, forgetful: Cluster, late: Cluster, tmp_path_factory: pytest.TempPathFactory, run: Run
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
        for cluster in (slurm, sge, forgetful, late)
    }


@pytest.fixture(scope="package")
def rigs(
    slurm: Cluster,
    sge: Cluster,
    forgetful: Cluster,
    late: Cluster,
    data: Mapping[Cluster, Path],
    faces: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Rigs]:
    """All clusters, at work from the start: on what each module's `begin` has for them, the longest modules first."""
    rigs = Rigs((slurm, sge), (forgetful, late), data, faces)
    modules = {getattr(item, "module", None) for item in request.session.items if item.get_closest_marker("cluster")}
    rigs.start("trained", train)
    for name in ORDER:
        for module in modules:
            if module and module.__name__ == f"{__package__}.test_{name}":
                module.begin(rigs)
    yield rigs
    rigs.close()


@pytest.fixture(scope="package")
def outcomes(late: Cluster, rigs: Rigs) -> Outcomes:
    """What came of each scenario of the plugin's program, and of what follows them."""
    return lambda name: rigs.started[f"plugin {name}"][late.name].result()
