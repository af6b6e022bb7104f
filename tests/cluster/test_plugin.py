"""submitit's functions on a real Grid Engine with three nodes, as a script of any project submits them."""

from __future__ import annotations

from tests.cluster import plugin
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Outcomes, Rigs


def begin(rigs: Rigs) -> None:
    """All scenarios of the program, then the loss of hosts."""
    futures = plugin.start(rigs.late, rigs.late.project(), rigs.pool(rigs.late))
    rigs.started |= {f"plugin {name}": {rigs.late.name: future} for name, future in futures.items()}


def test_a_function_runs_and_its_result_and_logs_come_back(outcomes: Outcomes, late: Cluster) -> None:
    found = outcomes("submit")
    assert found["result"] == 5
    assert "adding 2 and 3" in found["out"]
    assert found["err"] == "a warning\n"
    assert found["state"] == "COMPLETED"
    assert not list(late.directory.glob("project-*/**/harm"))


def test_root_can_do_the_same(outcomes: Outcomes) -> None:
    assert outcomes("root")["result"] == 5


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


def test_tasks_know_their_places_and_have_logs_of_their_own(outcomes: Outcomes, late: Cluster) -> None:
    found = outcomes("tasks")
    hosts = found["results"][0]["hosts"]
    assert len({*hosts} & {*late.nodes}) == len(hosts) == 2
    for rank, task in enumerate(found["results"]):
        assert task == {
            **{"global_rank": rank, "local_rank": rank % 2, "node": rank // 2, "num_tasks": 4, "num_nodes": 2},
            **{"hostname": hosts[rank // 2], "hosts": hosts},
        }
        assert [f"rank {other} speaks" in found["out"][rank] for other in range(4)] == [
            other == rank for other in range(4)
        ]


def test_one_task_on_the_first_host_is_told_of_the_others(outcomes: Outcomes, late: Cluster) -> None:
    (task,) = outcomes("first_host_only")["results"]
    assert (task["global_rank"], task["num_tasks"]) == (0, 1)
    assert task["hostname"] == task["hosts"][0]
    assert len({*task["hosts"]} & {*late.nodes}) == 2


def test_fewer_hosts_than_nodes_are_an_error_that_says_what_to_do(outcomes: Outcomes) -> None:
    found = outcomes("too_few_hosts")
    assert found["state"] == "FAILED"
    assert "granted 1 of 2 hosts: " in found["error"]


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


def test_cancelled_jobs_end_everywhere_and_do_not_come_back(outcomes: Outcomes) -> None:
    found = outcomes("cancel")
    assert [found[name]["state"] for name in ("running", "waiting", "wide")] == ["CANCELLED"] * 3
    finished, cancelled = found["array"]
    assert finished == 5
    assert cancelled["state"] == "CANCELLED"
    outcomes("nothing_is_left")


def test_it_runs_again_on_other_hosts_when_the_first_is_lost(outcomes: Outcomes) -> None:
    found = outcomes("lost_first_host")
    restarts, hosts = zip(*(result.split(" on ") for result in found["results"]), strict=True)
    assert restarts == ("1", "1")
    assert "hostname=(!" in found["asks"]  # it left them itself; Grid Engine's own restart asks for nothing new
    assert not {*hosts} & {*found["used"]}, found
    assert len({*hosts}) == 2


def test_it_runs_again_when_another_host_than_the_first_is_lost(outcomes: Outcomes) -> None:
    found = outcomes("lost_host")
    assert [result.split()[0] for result in found["results"]] == ["1", "1"]
    assert f"{found['host']} is lost" in found["err"]
