"""Reading what schedulers granted, from the text that they really give."""

import os
import socket
from pathlib import Path

import pytest

from jobs.scheduler import Host
from jobs.schedulers import find_allocation
from jobs.slurm.nodelist import expand_counts, expand_nodelist
from shard_tools.base.errors import UserError

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_JOB_CPUS_PER_NODE": "16(x2)",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_NNODES": "2",
}

PE_HOSTFILE = """\
node2.cluster.edu 8 gpu@node2.cluster.edu UNDEFINED
node1.cluster.edu 4 gpu@node1.cluster.edu UNDEFINED
"""


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("gpu1", ["gpu1"]),
        ("node[1-2]", ["node1", "node2"]),
        ("node[1-2,07],gpu3", ["node1", "node2", "node07", "gpu3"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[5,7]-ib", ["r1n5-ib", "r1n7-ib", "r2n5-ib", "r2n7-ib"]),
        ("qa-a100-001,login", ["qa-a100-001", "login"]),
        ("", []),
    ],
)
def test_nodelist_is_expanded_as_scontrol_does(nodelist: str, hosts: list[str]) -> None:
    assert expand_nodelist(nodelist) == hosts


def test_counts_are_expanded() -> None:
    assert expand_counts("16(x2),8") == [16, 16, 8]


def test_slurm_job() -> None:
    allocation = find_allocation(SLURM)
    assert (allocation.scheduler.name, allocation.job_id) == ("slurm", "7")
    assert allocation.hosts == (Host("node1", 16), Host("node2", 16))


def test_slurm_job_with_unlike_nodes() -> None:
    allocation = find_allocation({**SLURM, "SLURM_JOB_NODELIST": "a,b[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4,8(x2)"})
    assert allocation.hosts == (Host("a", 4), Host("b1", 8), Host("b2", 8))


def test_slurm_comes_before_leftover_grid_engine_variables() -> None:
    assert find_allocation({**SLURM, "JOB_ID": "3", "SGE_TASK_ID": "undefined"}).scheduler.name == "slurm"


def test_slurm_without_hosts_is_one_line_for_a_person() -> None:
    with pytest.raises(UserError, match=r"^SLURM_JOB_ID is set, but SLURM_JOB_NODELIST='' names no host: .*$"):
        find_allocation({"SLURM_JOB_ID": "7"})


def test_grid_engine_parallel_job(tmp_path: Path) -> None:
    hostfile = tmp_path / "pe_hostfile"
    hostfile.write_text(PE_HOSTFILE)
    environ = {"JOB_ID": "337624", "SGE_TASK_ID": "undefined", "PE_HOSTFILE": str(hostfile), "NSLOTS": "12"}
    allocation = find_allocation(environ)
    assert (allocation.scheduler.name, allocation.job_id) == ("sge", "337624")
    assert allocation.hosts == (Host("node2.cluster.edu", 8), Host("node1.cluster.edu", 4))


def test_grid_engine_job_without_pe_has_this_host() -> None:
    allocation = find_allocation({"JOB_ID": "12", "SGE_TASK_ID": "3", "NSLOTS": "4"})
    assert (allocation.scheduler.name, allocation.job_id) == ("sge", "12.3")
    assert allocation.hosts == (Host(socket.gethostname(), 4),)


@pytest.mark.parametrize(("text", "message"), [("", "names no host"), ("node1\n", "line 1 is not"), (None, "cannot")])
def test_bad_hostfile_is_one_line_for_a_person(tmp_path: Path, text: str | None, message: str) -> None:
    hostfile = tmp_path / "pe_hostfile"
    if text is not None:
        hostfile.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        find_allocation({"PE_HOSTFILE": str(hostfile)})
    assert "\n" not in str(caught.value)


def test_no_scheduler_is_this_machine() -> None:
    allocation = find_allocation({})
    assert allocation.scheduler.name == "local"
    assert allocation.hosts == (Host(socket.gethostname(), len(os.sched_getaffinity(0))),)
