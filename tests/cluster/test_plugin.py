"""submitit's functions on a real Grid Engine with three nodes, as a script of any project submits them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import NODES, Cluster
from tests.cluster.hosts import USER

PROGRAM = Path(__file__).with_name("plugin_program.py")
SCENARIOS = (
    *("time_limit", "cancel", "error_state", "limit_enforced", "too_few_hosts", "array", "tasks"),
    *("first_host_only", "one_log", "exception", "exit_99", "submit"),
)
"""The longest first."""

Outcomes = Callable[[str], Any]


@pytest.fixture(scope="module")
def folder(sge: Cluster) -> Path:
    """Where the user's script runs."""
    return sge.project()


def run_scenario(sge: Cluster, scenario: str, cwd: Path, user: str = USER) -> Any:
    done = sge.run("python", PROGRAM, scenario, user=user, cwd=cwd, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def outcomes(sge: Cluster, folder: Path) -> Iterator[Outcomes]:
    """What came of each scenario. All are started together, as most of their time is waiting."""
    with ThreadPoolExecutor(6) as pool:
        futures: dict[str, Future[Any]] = {name: pool.submit(run_scenario, sge, name, folder) for name in SCENARIOS}
        yield lambda name: futures[name].result()


def test_a_function_runs_and_its_result_and_logs_come_back(outcomes: Outcomes, folder: Path) -> None:
    found = outcomes("submit")
    assert found["result"] == 5
    assert "adding 2 and 3" in found["out"]
    assert found["err"] == "a warning\n"
    assert found["state"] == "COMPLETED"
    assert not list(folder.glob("**/harm"))


def test_root_can_do_the_same(sge: Cluster) -> None:
    assert run_scenario(sge, "submit", sge.project("root"), user="root")["result"] == 5


def test_both_streams_go_into_one_log_in_a_folder_of_the_job(outcomes: Outcomes) -> None:
    found = outcomes("one_log")
    assert "adding 2 and 3\na warning\n" in found["out"]
    assert found["err"] is None


def test_an_exception_comes_back_with_its_traceback(outcomes: Outcomes) -> None:
    found = outcomes("exception")
    assert (found["kind"], found["state"]) == ("FailedJobError", "FAILED")
    assert "KeyError: 'no such face'" in found["error"]


def test_five_functions_are_two_arrays_where_arrays_hold_three(outcomes: Outcomes) -> None:
    found = outcomes("array")
    assert found["results"] == [11, 12, 13, 14, 15]
    (first, _), (second, _) = (job_id.split("_") for job_id in (found["ids"][0], found["ids"][3]))
    assert found["ids"] == [f"{first}_1", f"{first}_2", f"{first}_3", f"{second}_1", f"{second}_2"]
    assert all(f"adding {number} and 10" in out for number, out in enumerate(found["out"], start=1))


def test_tasks_know_their_places_and_have_logs_of_their_own(outcomes: Outcomes) -> None:
    found = outcomes("tasks")
    hosts = found["results"][0]["hosts"]
    assert len({*hosts} & {*NODES}) == len(hosts) == 2
    for rank, task in enumerate(found["results"]):
        assert task == {
            **{"global_rank": rank, "local_rank": rank % 2, "node": rank // 2, "num_tasks": 4, "num_nodes": 2},
            **{"hostname": hosts[rank // 2], "hosts": hosts},
        }
        assert [f"rank {other} speaks" in found["out"][rank] for other in range(4)] == [
            other == rank for other in range(4)
        ]


def test_one_task_on_the_first_host_is_told_of_the_others(outcomes: Outcomes) -> None:
    (task,) = outcomes("first_host_only")["results"]
    assert (task["global_rank"], task["num_tasks"]) == (0, 1)
    assert task["hostname"] == task["hosts"][0]
    assert len({*task["hosts"]} & {*NODES}) == 2


def test_fewer_hosts_than_nodes_are_an_error_that_says_what_to_do(outcomes: Outcomes) -> None:
    found = outcomes("too_few_hosts")
    assert found["state"] == "FAILED"
    assert "granted 1 host(s) where 2 nodes were asked for" in found["error"]


def test_a_job_in_error_state_has_failed_for_grid_engines_reason(outcomes: Outcomes) -> None:
    found = outcomes("error_state")
    assert found["state"] == "FAILED"
    assert 'error state (Eqw): error: can\'t open output file "/nonexistent/log"' in found["error"]


def test_a_job_that_overruns_its_limit_has_timed_out(outcomes: Outcomes) -> None:
    assert outcomes("limit_enforced")["state"] == "TIMEOUT"


def test_exit_code_99_runs_the_function_again(outcomes: Outcomes) -> None:
    assert outcomes("exit_99") == "1"


def test_it_checkpoints_before_its_time_is_over_and_goes_on_on_both_hosts(outcomes: Outcomes) -> None:
    found = outcomes("time_limit")
    first, second = found["results"]
    assert first["reached"] == 60
    assert first["starts"] == second["starts"] == [0, second["reached"]]
    assert 0 < second["reached"] < 60
    assert found["out"].count("Starting with") == 2


def test_cancelled_jobs_end_everywhere_and_do_not_come_back(outcomes: Outcomes, sge: Cluster) -> None:
    found = outcomes("cancel")
    assert [found[name]["state"] for name in ("running", "waiting", "wide")] == ["CANCELLED"] * 3
    finished, cancelled = found["array"]
    assert finished == 5
    assert cancelled["state"] == "CANCELLED"
    for name in SCENARIOS:
        outcomes(name)
    sge.wait_until(
        lambda: not any(sge.job_processes(node) for node in NODES) and "submitit" not in sge.run("qstat").stdout,
        60,
        "nothing of any job is left",
        lambda: [sge.job_processes(node) for node in NODES],
    )


def test_it_runs_again_when_another_host_than_the_first_is_lost(outcomes: Outcomes, sge: Cluster) -> None:
    for name in SCENARIOS:
        outcomes(name)
    folder = sge.project()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_scenario, sge, "lost_host", folder)
        sge.wait_until(lambda: {"id", "rank-0", "rank-1"} <= {path.name for path in folder.iterdir()}, 60, "both run")
        job = (folder / "id").read_text()
        lines = {node: "\n".join(sge.job_processes(node).values()) for node in NODES}
        (other,) = [node for node, line in lines.items() if line and "jobs.sge.tasks" not in line]
        sge.cut_power(other)
        sge.wait_until(lambda: "R" in sge.state(job), 120, "the job waits to run again", lambda: sge.state(job))
        (folder / "go").touch()
        sge.restore_power(other)
        found = future.result()
    assert found["results"] == ["1", "1"]
    assert f"{other} is lost" in found["err"]
