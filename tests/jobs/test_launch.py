"""`hpcgender launch`: what it refuses at once, and what it plans from a job's environment."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pytest

from hpcgender.cli import COMMANDS
from hpcgender.launch import LaunchConfig, check_command, free_ports, make_plan, run_plan, start_line
from shard_tools.commands import Command, UserError

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "hpcgender.launch", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--", "trian"), "hpcgender: unknown command 'trian': did you mean train?\n"),
        (("--", "launch"), "hpcgender: unknown command 'launch': known: train"),
        (("--", "train", "--data", "nowhere"), "nowhere"),
        (("--nodes", "0"), "hpcgender: --nodes 0: at least 1 is needed\n"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err = run(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_of_the_command_is_refused(tmp_path: Path) -> None:
    code, out, err = run("--", "train", "--epocs", "3", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "epocs" in err


def test_launch_does_not_import_torch() -> None:
    code = "import sys, hpcgender.launch, hpcgender.train.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


@dataclass(kw_only=True)
class StandIn:
    """The options of a command with a run directory, and one bad value."""

    name: str = "first"

    @property
    def run_dir(self) -> Path:
        return Path("runs", self.name)

    def check(self) -> None:
        if self.name == "bad":
            raise UserError("--name bad: no such name")


def test_options_are_checked_and_say_where_ranks_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "stand-in", Command(f"{__name__}:StandIn", "", ""))
    assert check_command(["stand-in", "--name", "second"]) == "runs/second/logs/rank-{rank}.log"
    with pytest.raises(UserError, match="no such name"):
        check_command(["stand-in", "--name", "bad"])


def test_slurm_job_uses_what_was_granted() -> None:
    plan = make_plan(LaunchConfig(), {**SLURM, "CUDA_VISIBLE_DEVICES": "4,5,6,7"})
    assert [host.name for host in plan.allocation.hosts] == ["node1", "node2"]
    assert plan.procs_per_node == 4
    assert plan.environ == ({"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"})
    assert plan.ranks == ("-m", "hpcgender.train")
    assert start_line(plan, "node1", 12345) == (
        "launch: train on 2 nodes (node1, node2), 4 processes each, 4 threads each, rendezvous node1:12345"
    )


def test_fewer_nodes_than_granted_are_the_first() -> None:
    plan = make_plan(LaunchConfig(nodes=1), {**SLURM, "CUDA_VISIBLE_DEVICES": ""})
    assert [host.name for host in plan.allocation.hosts] == ["node1"]
    assert plan.procs_per_node == 1


def test_more_nodes_than_granted_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--nodes 3, but job 7 was granted 2 hosts \(node1, node2\): .*$"):
        make_plan(LaunchConfig(nodes=3), SLURM)


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(UserError, match="SLURM_JOB_NODELIST"):
        make_plan(LaunchConfig(), {"SLURM_JOB_ID": "7"})


def test_local_nodes_share_cores_and_gpus() -> None:
    plan = make_plan(LaunchConfig(nodes=2), {"CUDA_VISIBLE_DEVICES": "1,GPU-2f,3,5"})
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2 // 2))
    assert plan.procs_per_node == 2
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in plan.environ] == ["1,GPU-2f", "3,5"]
    assert [extra["OMP_NUM_THREADS"] for extra in plan.environ] == [threads, threads]


def test_what_the_user_set_is_left_alone() -> None:
    environ = {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "2,3"}
    assert make_plan(LaunchConfig(), environ).environ == ({},)
    assert make_plan(LaunchConfig(nodes=2, procs_per_node=4), environ).environ == ({}, {})


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    plan = replace(make_plan(LaunchConfig(), {}), ranks=("-m", "tests.jobs.program", "exit", "0", "99"))
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        others = free_ports(plan.allocation)
        monkeypatch.setattr("hpcgender.launch.free_ports", lambda _: chain([port], others))
        assert run_plan(plan) == 99
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == f"launch: port {port} on 127.0.0.1 is taken: trying another"
    assert len(lines) == 4
    assert lines[3] == "program: no such data"
