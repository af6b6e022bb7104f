"""What a user meets before anything is submitted, and what a job's process knows of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.sge import SgeExecutor, SgeJobEnvironment
from jobs.sge.hostfile import granted_hosts, parse_pe_hostfile
from jobs.sge.requeue import report_seconds
from tests.programs import put


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH where a test puts commands; nothing else is on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SGE_ROOT", raising=False)
    return tmp_path


def test_grid_engine_is_not_taken_for_there_because_of_a_qsub(commands: Path) -> None:
    put(commands, "qsub")
    assert SgeExecutor.affinity() == -1
    with pytest.raises(RuntimeError, match="no qsub and qconf"):
        SgeExecutor("logs")


def test_it_is_chosen_by_itself_only_where_a_cluster_is_set(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(commands, "qsub")
    put(commands, "qconf")
    assert SgeExecutor.affinity() == 0
    monkeypatch.setenv("SGE_ROOT", "/opt/sge")
    assert SgeExecutor.affinity() == 2


def test_unknown_parameters_are_named(commands: Path) -> None:
    put(commands, "qsub")
    put(commands, "qconf")
    executor = SgeExecutor(commands / "jobs")
    with pytest.raises(ValueError, match=r"knows no parameter partition: choose from .*queue"):
        executor.update_parameters(partition="gpu")


def test_the_id_is_found_among_a_sites_own_lines() -> None:
    find = SgeExecutor._get_job_id_from_submission_command
    assert find("Welcome to the cluster, 3 nodes are down\n4711\n") == "4711"
    assert find("JSV says 8 is fine\n4712.1-75:1\n") == "4712"


def test_a_task_knows_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hostfile = tmp_path / "pe_hostfile"
    hostfile.write_text("gpu1 2 all.q@gpu1 UNDEFINED\ngpu2 1 all.q@gpu2 <NULL>\ngpu2 1 long.q@gpu2 <NULL>\n")
    for name, value in (("JOB_ID", "12"), ("SGE_TASK_ID", "undefined"), ("PE_HOSTFILE", str(hostfile))):
        monkeypatch.setenv(name, value)
    environment = SgeJobEnvironment()
    assert (environment.job_id, environment.num_tasks, environment.global_rank) == ("12", 1, 0)
    assert list(environment.hostnames) == ["gpu1", "gpu2"]
    assert granted_hosts() == {"gpu1": 2, "gpu2": 2}
    monkeypatch.setenv("SGE_TASK_ID", "3")
    assert (environment.job_id, environment.array_job_id, environment.array_task_id) == ("12_3", "12", "3")


def test_a_broken_hostfile_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PE_HOSTFILE line 2 is not"):
        parse_pe_hostfile("gpu1 2 q r\ngpu2\n")
    with pytest.raises(ValueError, match="cannot read PE_HOSTFILE"):
        granted_hosts({"PE_HOSTFILE": str(tmp_path / "none")})


def test_a_requeued_job_waits_for_the_hosts_reports() -> None:
    assert report_seconds("max_unheard    00:05:00\nload_report_time             00:01:10\n") == 70
    assert report_seconds("") == 40


def test_it_needs_only_the_supervisor_and_commands_of_this_project_and_submitit_only_when_submitting() -> None:
    program = """
import sys
import jobs.sge.qstat, jobs.sge.hostfile
BESIDES = ("sge", "hosts", "command")  # the last two need nothing but the standard library
assert "submitit" not in sys.modules
import jobs.sge.executor, jobs.sge.environment, jobs.sge.tasks
others = [name for name in sys.modules if name.split(".")[0] in ("hpcgender", "shard_tools", "torch")]
others += [name for name in sys.modules if name.startswith("jobs.") and name.split(".")[1] not in BESIDES]
print(others)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_submitit_finds_it_installed(tmp_path: Path) -> None:
    put(tmp_path, "qsub")
    put(tmp_path, "qconf")
    program = f"import submitit; print(submitit.AutoExecutor({str(tmp_path)!r}, cluster='sge').cluster)"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.stdout == "sge\n", done.stderr
