"""Which hosts, processes, cores and GPUs the launcher plans to use, from a job's environment or this machine."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.agents import Layout, attempt_line, free_ports, make_layout, run_layout
from hpcgender.launch.attempt import as_asked
from hpcgender.launch.submit import request
from jobs import machine
from jobs.schedulers import find_allocation
from jobs.site import Site
from jobs.stopping import StopRequests
from shard_tools.base.commands import find_call
from shard_tools.base.errors import UserError

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}


def plan(config: LaunchConfig, environ: dict[str, str], site: Site | None = None) -> Layout:
    here = site or Site(name="test", scheduler="local")
    return make_layout(config, find_call(PROGRAMS, config.command), here, find_allocation(environ), environ)


def test_ranks_log_in_the_run_of_their_command() -> None:
    assert plan(LaunchConfig(command=("train", "--name", "second")), {}).rank_log == "runs/second/logs/rank-{rank}.log"


def test_slurm_job_uses_what_was_granted() -> None:
    planned = plan(LaunchConfig(), {**SLURM, "CUDA_VISIBLE_DEVICES": "4,5,6,7"})
    assert [host.name for host in planned.allocation.hosts] == ["node1", "node2"]
    assert planned.procs_per_node == 4
    assert planned.environ == ({"OMP_NUM_THREADS": "4", "HPCGENDER_DEVICE": "cuda"},) * 2
    assert planned.ranks == ("-m", "hpcgender", "train")
    assert attempt_line(planned, "node1", 12345) == (
        "launch: train on 2 nodes (node1, node2), 4 processes each, 4 threads each, rendezvous node1:12345"
    )


def test_what_no_processes_share_runs_once() -> None:
    planned = plan(LaunchConfig(command=("verify", "data/x")), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [host.name for host in planned.allocation.hosts] == ["node1"]
    assert planned.procs_per_node == 1
    assert planned.ranks == ("-m", "shard_tools", "verify", "data/x")


def test_fewer_nodes_than_granted_are_the_first() -> None:
    planned = plan(LaunchConfig(nodes=1), {**SLURM, "CUDA_VISIBLE_DEVICES": ""})
    assert [host.name for host in planned.allocation.hosts] == ["node1"]
    assert planned.procs_per_node == 1


def test_more_nodes_than_granted_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--nodes 3, but job 7 was granted 2 hosts \(node1, node2\): .*$"):
        plan(LaunchConfig(nodes=3), SLURM)


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(UserError, match="SLURM_JOB_NODELIST"):
        plan(LaunchConfig(), {"SLURM_JOB_ID": "7"})


def test_local_nodes_share_cores_and_gpus() -> None:
    planned = plan(LaunchConfig(nodes=2), {"CUDA_VISIBLE_DEVICES": "1,GPU-2f,3,5"})
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2 // 2))
    assert planned.procs_per_node == 2
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in planned.environ] == ["1,GPU-2f", "3,5"]
    assert [extra["OMP_NUM_THREADS"] for extra in planned.environ] == [threads, threads]
    fewer = plan(LaunchConfig(nodes=2, gpus_per_node=1), {"CUDA_VISIBLE_DEVICES": "1,GPU-2f,3,5"})
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in fewer.environ] == ["1", "GPU-2f"]


def test_what_the_user_set_is_left_alone() -> None:
    environ = {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "2,3"}
    assert plan(LaunchConfig(), environ).environ == ({"HPCGENDER_DEVICE": "cuda"},)
    environ["HPCGENDER_DEVICE"] = "cpu"
    assert plan(LaunchConfig(), environ).environ == ({},)
    assert plan(LaunchConfig(nodes=2, procs_per_node=4), environ).environ == ({}, {})


def test_a_site_has_a_container_and_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    container = "apptainer exec --nv --pwd={directory} 'my image.sif'"
    site = Site(name="x", scheduler="slurm", container=container, scratch="/scratch/$USER")
    planned = plan(LaunchConfig(), SLURM, site)
    assert planned.python == ("apptainer", "exec", "--nv", f"--pwd={Path.cwd()}", "my image.sif", "python3")
    assert planned.environ[1]["TMPDIR"] == "/scratch/ada"


def test_ranks_run_in_the_container(capfd: pytest.CaptureFixture[str]) -> None:
    container = ("unshare", "--user", "--map-current-user")  # a namespace of their own, as apptainer gives them
    if subprocess.run([*container, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    site = Site(name="x", scheduler="local", container=shlex.join(container), container_python=sys.executable)
    planned = replace(plan(LaunchConfig(nodes=2), {}, site), ranks=("-m", "tests.jobs.program", "namespace"))
    with StopRequests() as requests:
        assert run_layout(planned, requests).code == 0
    inside = capfd.readouterr().out
    assert inside.startswith("user:[")
    assert inside.strip() != str(Path("/proc/self/ns/user").readlink())


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    planned = replace(plan(LaunchConfig(), {}), ranks=("-m", "tests.jobs.program", "exit", "0", "99"))
    with socket.create_server(("", 0)) as taken, StopRequests() as requests:
        port = taken.getsockname()[1]
        others = free_ports(planned.allocation)
        monkeypatch.setattr("hpcgender.launch.agents.free_ports", lambda _: chain([port], others))
        assert run_layout(planned, requests).code == 99
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == f"launch: port {port} on 127.0.0.1 is taken: trying another"
    assert len(lines) == 4
    assert lines[3] == "program: no such data"


@pytest.mark.parametrize("environ", [{"SLURM_JOB_ID": "5"}, SLURM, {"JOB_ID": "3", "SGE_TASK_ID": "undefined"}])
def test_this_machine_is_used_within_a_job_if_that_is_asked_for(environ: dict[str, str], tmp_path: Path) -> None:
    for option in ("--scheduler", "--site"):
        command = [sys.executable, "-m", "hpcgender.launch", option, "local", "--dry-run", "--", "models"]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60, env=os.environ | environ
        )
        assert done.stdout.startswith(f"1 node ({socket.gethostname()}) with 1 process each: ")
    assert find_allocation(environ, "local").scheduler.name == "local"


def test_another_schedulers_job_does_not_count() -> None:
    assert find_allocation(SLURM, "slurm").scheduler.name == "slurm"
    assert find_allocation(SLURM, "sge").scheduler.name == "local"


@pytest.mark.parametrize(
    ("options", "gpus", "environ", "says"),
    [
        ({"gpus_per_node": 1}, "", {}, f"--gpus-per-node 1, but {socket.gethostname()} has 0"),
        ({"gpus_per_node": 2, "nodes": 2}, "0,1", {}, "--gpus-per-node 2 for 2 nodes, but"),
        ({"gpus_per_node": 4}, "0,1", SLURM, "--gpus-per-node 4, but job 7 was granted 2 on node1"),
        ({"gpus_per_node": 1, "command": ("verify", "x")}, "", {}, "--gpus-per-node 1, but"),
    ],
)
def test_gpus_that_are_not_there_are_refused(
    options: dict[str, Any], gpus: str, environ: dict[str, str], says: str
) -> None:
    with pytest.raises(UserError) as error:
        plan(LaunchConfig(**options), {**environ, "CUDA_VISIBLE_DEVICES": gpus})
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        (
            {"nodes": 2},
            {},
            f"2 processes, but {socket.gethostname()} has 1 GPU, and each needs its own: give fewer --nodes",
        ),
        ({"procs_per_node": 2}, SLURM, "2 processes, but node1 has 1 GPU, and each needs its own"),
    ],
)
def test_more_processes_than_gpus_are_refused(options: dict[str, Any], environ: dict[str, str], says: str) -> None:
    environ = {**environ, "CUDA_VISIBLE_DEVICES": "GPU-2f"}
    with pytest.raises(UserError) as error:
        plan(LaunchConfig(**options), environ)
    assert str(error.value).startswith(says)
    for cpu in (plan(LaunchConfig(gpus_per_node=0, **options), environ), plan(LaunchConfig(**options), SLURM)):
        assert not any("HPCGENDER_DEVICE" in extra for extra in cpu.environ)


def test_all_hosts_are_told_to_expect_gpus_where_the_first_has_them() -> None:
    planned = plan(LaunchConfig(), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [extra["HPCGENDER_DEVICE"] for extra in planned.environ] == ["cuda", "cuda"]


def test_a_mask_that_lists_gpus_is_not_taken_for_them(tmp_path: Path) -> None:
    assert not machine.has_gpus(tmp_path) or shutil.which("nvidia-smi")
    (tmp_path / "nvidia0").write_text("")
    assert machine.has_gpus(tmp_path)


def test_a_command_that_is_one_process_takes_no_more() -> None:
    several = LaunchConfig(command=("verify", "x"), nodes=2), LaunchConfig(command=("verify", "x"), procs_per_node=2)
    for config in several:
        with pytest.raises(UserError, match="verify is one process on one node"):
            plan(config, {})
        with pytest.raises(UserError, match="verify is one process on one node"):
            request(config, find_call(PROGRAMS, ("verify", "x")), Site(name="x", scheduler="slurm"))


def test_no_gpus_are_shown_to_a_command_that_asks_for_none() -> None:
    for environ, nodes in (({}, None), ({}, 2), (SLURM, None)):
        planned = plan(LaunchConfig(gpus_per_node=0, nodes=nodes), {**environ, "CUDA_VISIBLE_DEVICES": "0,1"})
        assert {extra["CUDA_VISIBLE_DEVICES"] for extra in planned.environ} == {""}
        assert planned.procs_per_node == 1


def test_cores_are_limited_as_asked_for() -> None:
    planned = plan(LaunchConfig(cpus=8), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [host.cpus for host in planned.allocation.hosts] == [8, 8]
    assert planned.threads == "4"
    assert [host.cpus for host in plan(LaunchConfig(cpus=64), SLURM).allocation.hosts] == [16, 16]


def test_of_more_hosts_than_were_asked_for_the_rest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    granted = plan(LaunchConfig(), SLURM).allocation
    assert as_asked(granted, 1).hosts == granted.hosts[:1]
    names = [host.name for host in granted.hosts]
    assert f"1 node was asked for, 2 granted: without {names[1]}\n" in capsys.readouterr().err
    assert as_asked(granted, 2) == as_asked(granted, 3) == granted
    assert capsys.readouterr().err == ""
