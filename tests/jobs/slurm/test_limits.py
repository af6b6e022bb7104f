"""Whether a job could ever start on Slurm, by what scontrol, sinfo and sacctmgr of 22.05 print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.records import Resources
from jobs.scheduler import Request
from jobs.schedulers import SCHEDULERS
from jobs.site import Site
from jobs.slurm import answers
from shard_tools.base.errors import UserError
from tests.programs import cat, put

# scontrol -a -o show partition
PARTITIONS = """\
PartitionName=debug AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A \
DefaultTime=00:10:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=2 MaxTime=1-00:00:00 \
MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] PriorityJobFactor=1 PriorityTier=1 State=UP TotalCPUs=16 \
TotalNodes=2 DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=16,mem=32000M,node=2,billing=16
PartitionName=other Default=NO QoS=N/A MaxNodes=UNLIMITED MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED Nodes=node3
"""
# sinfo -h -N -p debug -o '%N|%c|%m|%T|%f|%G'
NODES = "node1|8|16000|idle|(null)|gpu:2,gpu:1g.10gb:7\nnode2|8|16000|{state}|ib,a100|gpu:a100:2(S:0-1)\n"
CONFIG = "ClusterName             = test\nAccountingStorageEnforce = associations,limits,qos\n"
CONFIG += "MaxArraySize            = 1001\n"
# sacctmgr -n -P show qos format=name,flags,maxwall,maxtresperjob,maxtrespernode,maxtrespu,grptres
QOS = """\
normal||||
short||00:10:00||
deny|DenyOnLimit||gres/gpu=1,node=1|
small|||cpu=4,gres/gpu=1|
long|PartitionTimeLimit|2-00:00:00||
two|||||gres/gpu=1|cpu=2
"""
# the same of assoc user=student format=cluster,account,partition,defaultqos,maxwall, ..., grptres
ASSOCIATION = (
    "elsewhere|lab||normal|00:01:00||\ntest|teaching||normal|02:00:00||\ntest|lab|other|normal|00:03:00||\n"
    "test|lab||normal|10:00:00||\ntest|both||normal|10:00:00||\ntest|both|debug|normal|01:00:00||\n"
)

# the same of assoc where user= format=cluster,account,parentname,grptres
ACCOUNTS = "test|root||\ntest|faculty|root|cpu=6\ntest|lab|faculty|cpu=100\nelsewhere|lab|root|cpu=1\n"
# scontrol -o show job 21
WAITING = """\
JobId=21 JobName=s.sh UserId=me(50) Account=lab QOS=two JobState=PENDING Reason=QOSGrpCpuLimit Dependency=(null) \
TimeLimit=00:10:00 Partition=debug NumNodes=1-1 NumCPUs=3 NumTasks=3 CPUs/Task=1 TRES=cpu={cpus},mem=16000M,node=1,\
billing={cpus} Command=s.sh"""

NOT_AVAILABLE = "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1"
"""What sbatch --test-only says, of drained nodes also."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of a Slurm with two nodes; they alone are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    put(tmp_path, "scontrol", f'case "$*" in *config) echo "{CONFIG}";; *) {cat(PARTITIONS)} esac')
    put(tmp_path, "sinfo", cat(NODES.format(state="idle")))
    put(
        tmp_path,
        "sacctmgr",
        f'case "$*" in *qos*name,*) {cat(QOS)} ;; *user=\\ *) {cat(ACCOUNTS)} ;; *defaultaccount) echo lab ;; '
        f"*) {cat(ASSOCIATION)} esac",
    )
    put(tmp_path, "sbatch", "echo 'sbatch: Job 1 to start at 2026-11-29T06:47:09 using 1 processors' >&2")
    return tmp_path


def check(tmp_path: Path, options: tuple[str, ...] = (), qos: str = "", gpu: str = "", **wanted: float) -> str:
    site = Site(name="x", scheduler="slurm", qos=qos, gpu=gpu, options=options)
    request = Request(name="train", site=site, resources=Resources(**wanted))  # type: ignore[arg-type]
    return str(SCHEDULERS["slurm"].check(request, tmp_path / "%j"))


@pytest.mark.parametrize(
    ("wanted", "because"),
    [
        ({"time_min": 60 * 25.0, "qos": "long"}, ""),  # whose flag PartitionTimeLimit lets it exceed the partition's
        ({"time_min": 60 * 25.0, "qos": "nix"}, "partition debug gives a job at most 1-00:00:00 of time"),
        ({"time_min": 60 * 50.0, "qos": "long"}, "quality of service long gives a job at most 2-00:00:00 of time"),
        ({"time_min": 11.0, "qos": "short"}, "quality of service short gives a job at most 00:10:00 of time"),
        ({"time_min": 11.0}, ""),
        ({"time_min": 601.0}, "account lab gives a job at most 10:00:00 of time"),
        ({"gpus_per_node": 2, "qos": "small"}, "quality of service small gives a job at most 1 GPU"),
        ({"nodes": 2, "cpus": 3, "qos": "small"}, "quality of service small gives a job at most 4 cores"),
        ({"nodes": 2, "cpus": 2, "gpus_per_node": 2}, ""),
        ({"nodes": 2, "cpus": 3}, ""),
        (
            {"nodes": 2, "cpus": 4},
            "account faculty gives all of its jobs together at most 6 cores",
        ),  # to which lab belongs
        ({"cpus": 3, "qos": "two"}, "quality of service two gives all of its jobs together at most 2 cores"),
        ({"gpus_per_node": 2, "qos": "two"}, "quality of service two gives all jobs of a user at most 1 GPU"),
        (
            {"nodes": 3},
            "partition debug gives a job at most 2 nodes; partition debug has 2 nodes of 2 with 1 core",
        ),
        ({"cpus": 9}, "partition debug has 0 nodes of 2 with 9 cores, and the job asks for 1"),
        ({"mem": 16.0}, "partition debug has 0 nodes of 2 with 1 core, 16 GB, and the job asks for 1"),
        ({"gpus_per_node": 2, "gpu": "a100"}, ""),
        ({"gpus_per_node": 7, "gpu": "1g.10gb"}, ""),  # parts of GPUs, as MIG makes them
        ({"gpus_per_node": 8, "gpu": "1g.10gb"}, "has 0 nodes of 2 with 1 core, 8 GPUs, 8 1g.10gb GPUs, and"),
        ({"gpus_per_node": 1, "nodes": 2, "gpu": "a100"}, "debug has 1 node of 2 with 1 core, 1 GPU, 1 a100 GPU, and"),
        ({"nodes": 2, "options": ("--constraint=ib",)}, "partition debug has 1 node of 2 with 1 core and ib"),
    ],
)
def test_what_could_never_start_is_refused(slurm: Path, wanted: dict[str, float], because: str) -> None:
    if not because:
        assert check(slurm, **wanted).startswith("Job 1 to start")  # type: ignore[arg-type]
        return
    with pytest.raises(UserError) as caught:
        check(slurm, **wanted)  # type: ignore[arg-type]
    assert str(caught.value).startswith("Slurm would never start train: ")
    assert because in str(caught.value)


@pytest.mark.parametrize(
    ("account", "minutes", "most"),
    [("", 601.0, "10:00:00"), ("teaching", 121.0, "02:00:00"), ("both", 61.0, "01:00:00")],
)
def test_the_account_that_a_job_is_of_limits_it(slurm: Path, account: str, minutes: float, most: str) -> None:
    """By default the user's own, lab, wherever it is in the list; an association of the partition goes first."""
    options = (f"--account={account}",) if account else ()
    assert check(slurm, options, time_min=minutes - 1).startswith("Job 1 to start")
    with pytest.raises(UserError, match=rf"account {account or 'lab'} gives a job at most {most} of time$"):
        check(slurm, options, time_min=minutes)


def test_what_has_to_wait_for_nodes_is_not_refused(slurm: Path) -> None:
    put(slurm, "sbatch", NOT_AVAILABLE)
    put(slurm, "sinfo", cat(NODES.format(state="drained")))
    assert check(slurm, nodes=2) == "not now: no jobs are taken at present by node2"
    with pytest.raises(UserError, match=r"^Slurm refuses train: Requested node configuration is not available$"):
        check(slurm, nodes=1)  # node1 is there: something else is wrong
    put(slurm, "sinfo", cat(NODES.format(state="idle")))
    with pytest.raises(UserError, match=r"^Slurm refuses train: "):
        check(slurm, nodes=2)


def test_an_array_of_more_tasks_than_slurm_takes_is_refused(slurm: Path) -> None:
    request = Request(name="mine", site=Site(name="x", scheduler="slurm"), resources=Resources(), tasks=1001)
    assert SCHEDULERS["slurm"].check(request, slurm / "%j").answer.startswith("Job 1 to start")
    with pytest.raises(UserError, match=r"^mine has 1002 tasks, and Slurm takes an array of at most 1001, its MaxAr"):
        SCHEDULERS["slurm"].check(replace(request, tasks=1002), slurm / "%j")


def test_without_accounting_the_partition_alone_counts(slurm: Path) -> None:
    put(slurm, "scontrol", f'case "$*" in *config) ;; *) {cat(PARTITIONS)} esac')
    assert check(slurm, time_min=601.0).startswith("Job 1")
    with pytest.raises(UserError, match="partition debug gives a job at most"):
        check(slurm, time_min=60 * 25.0)


@pytest.mark.parametrize("tres", ["TRES=", "ReqTRES="])  # of Slurm 22.05, and of newer ones
def test_a_job_that_waits_for_a_limit_is_told_which_it_is_and_whether_it_waits_in_vain(slurm: Path, tres: str) -> None:
    def details(cpus: int) -> tuple[str, ...]:
        job = WAITING.format(cpus=cpus).replace(" TRES=", f" {tres}")
        put(slurm, "scontrol", f'case "$*" in *config) echo "{CONFIG}";; *) {cat(job + chr(10))} esac')
        return SCHEDULERS["slurm"].details("21")

    assert details(3) == ("it will never start: quality of service two gives all of its jobs together at most 2 cores",)
    assert details(2)[:2] == (
        "quality of service two gives all jobs of a user at most 1 GPU",
        "quality of service two gives all of its jobs together at most 2 cores",
    )


def test_a_submission_above_a_limit_is_refused_in_plain_words(slurm: Path) -> None:
    said = "allocation failure: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    put(slurm, "sbatch", f'echo "sbatch: error: QOSMaxSubmitJobPerUserLimit\n{said}" >&2; exit 1')
    with pytest.raises(UserError, match=r"QOSMaxSubmitJobPerUserLimit; .* \(as many jobs wait and run as may be"):
        check(slurm)


@pytest.mark.parametrize(
    ("reason", "ever"),
    [
        ("QOSMaxWallDurationPerJobLimit", False),
        ("QOSMaxGRESPerJob", False),
        ("AssocMaxWallDurationPerJobLimit", False),
        ("QOSMaxJobsPerUserLimit", True),
        ("AssocGrpCpuLimit", True),
    ],
)
def test_a_limit_of_each_job_is_not_one_of_all(reason: str, ever: bool) -> None:
    assert ("will not start" in answers.meaning("7", reason)) is not ever
