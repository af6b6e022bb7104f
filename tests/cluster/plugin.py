"""The scenarios of `plugin_program.py` on a Grid Engine: all of them side by side, then the loss of a host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.hosts import USER

PROGRAM = Path(__file__).with_name("plugin_program.py")
SCENARIOS = (
    *("time_limit", "cancel", "error_state", "limit_enforced", "too_few_hosts", "array", "tasks"),
    *("first_host_only", "one_log", "exception", "exit_99", "submit"),
)
"""The longest first."""


def start(cluster: Cluster, folder: Path, pool: ThreadPoolExecutor) -> Mapping[str, Future[Any]]:
    """Starts all scenarios together in a project; returns what comes of each by name, and of those of lost hosts.

    "root" is the simplest one as root. "nothing_is_left" waits until all others have left nothing. `pool` has the
    cluster's scenarios.
    """
    program = ThreadPoolExecutor(6)
    futures: dict[str, Future[Any]] = {name: program.submit(run, cluster, name, folder) for name in SCENARIOS}
    futures["root"] = program.submit(run, cluster, "submit", cluster.project("root"), "root")
    program.shutdown(wait=False)
    before = list(futures.values())

    def nothing_is_left() -> None:
        wait(before)
        cluster.wait_until(
            lambda: (
                not any(map(cluster.job_processes, cluster.nodes)) and "submitit" not in cluster.run("qstat").stdout
            ),
            60,
            "nothing of any job is left",
            lambda: [cluster.job_processes(node) for node in cluster.nodes],
        )

    futures["nothing_is_left"] = pool.submit(nothing_is_left)
    futures["lost_host"] = pool.submit(lose_host, cluster, first=False)
    futures["lost_first_host"] = pool.submit(lose_host, cluster, first=True)
    return futures


def run(cluster: Cluster, scenario: str, cwd: Path, user: str = USER) -> Any:
    """Runs one scenario to its end, and returns what the program says of it."""
    done = cluster.run("python", PROGRAM, scenario, user=user, cwd=cwd, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def lose_host(cluster: Cluster, first: bool) -> Any:
    """Runs the scenario `lost_host`, whose job loses its first or its second host; what came of it, and that host."""
    folder = cluster.project()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, cluster, "lost_host", folder)
        cluster.wait_until(
            lambda: {"id", "rank-0", "rank-1"} <= {path.name for path in folder.iterdir()}, 60, "both run"
        )
        job = (folder / "id").read_text()
        lines = {node: "\n".join(cluster.job_processes(node).values()) for node in cluster.nodes}
        used = sorted(
            (node for node, line in lines.items() if line), key=lambda node: "jobs.sge.tasks" not in lines[node]
        )
        lost = used[not first]
        cluster.cut_power(lost)
        again = "Rr" if first else "R"  # it has other hosts, and begins there; or it waits for this one
        cluster.wait_until(lambda: again in cluster.state(job), 120, "it begins again", lambda: cluster.state(job))
        asks = cluster.run("qstat", "-j", job, user="root").stdout
        (folder / "go").touch()
        if first:
            found = future.result()
        cluster.restore_power(lost)
        return (found if first else future.result()) | {"host": lost, "used": used, "asks": asks}
