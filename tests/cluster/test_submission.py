"""Submitting with `python -m hpcgender.launch` and with submitit: chains, refusals, any names, many jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from jobs.schedulers import SCHEDULERS
from jobs.slurm import answers
from tests.cluster.cluster import NODES, Cluster, End
from tests.cluster.conftest import Rigs
from tests.cluster.hosts import USER
from tests.cluster.training import OPTIONS, launch, read_events, read_log, submitted
from tests.wild import WILD, check_wild_pack, pack_wild_table

SUBMITIT = """
import os, socket, submitit
executor = submitit.AutoExecutor(folder="logs/%j", cluster=os.environ["CLUSTER"])
executor.update_parameters(name="from python", timeout_min=5)
job = executor.submit(lambda a, b: (a + b, socket.gethostname(), os.getuid()), 40, 2)
print(job.result())
"""


@dataclass(frozen=True)
class Chain:
    """Three jobs, each after the one before, as they have ended."""

    project: Path
    jobs: list[str]
    ends: list[End]

    @property
    def logs(self) -> str:
        return "\n".join(read_log(self.project, job) for job in self.jobs)


def chain(cluster: Cluster, data: Path) -> tuple[Chain, Chain]:
    """Train, eval and cam one after the other; and the same of a training that fails."""
    started = [begin_chain(cluster, data, fails) for fails in (False, True)]
    good, bad = (Chain(*chain, [cluster.wait(job, 400) for job in chain[1]]) for chain in started)
    return good, bad


def begin_chain(cluster: Cluster, data: Path, fails: bool) -> tuple[Path, list[str]]:
    """Launches it; the ids of its jobs, and the project."""
    project = cluster.project()
    command: tuple[object, ...] = ("train", "--data", data, *OPTIONS, "--epochs", 1)
    if fails:  # only the ranks read what is in it: it is submitted, and fails when it begins
        torch.save({"other": torch.zeros(1)}, project / "other.pt")
        command = (*command, "--pretrained", project / "other.pt")
    return project, launch(cluster, project, "--nodes", 2, "--chain", "eval,cam", "--", *command)


def pack_wild(cluster: Cluster, faces: Path) -> None:
    """A job whose paths, name and options are as strange as may be; a name that no scheduler takes is refused."""
    project = cluster.project() / WILD
    cluster.run("mkdir", project)
    for path in project.parent.iterdir():
        if path.is_symlink():
            (project / path.name).symlink_to(path.resolve())
    out = Path(f"out {WILD}")
    command = pack_wild_table(project, faces, out)
    refused = ("python", "-m", "hpcgender.launch", "--job-name", WILD, "--", *command)
    assert cluster.run(*refused, user=USER, cwd=project, check=False).returncode == 2
    (job,) = launch(cluster, project, "--job-name", "pack+it", "--", *command)
    end = cluster.wait(job)
    assert end.code == 0, cluster.run("ls", "-la", project, project / "logs").stdout + read_log(project, job)
    check_wild_pack(cluster.directory, project / out)


def submit_ten(cluster: Cluster, faces: Path) -> None:
    """Ten jobs of two users at once."""
    images = cluster.directory / "images"
    images.mkdir()
    for face in sorted(faces.iterdir())[:8]:
        (images / face.name).write_bytes(face.read_bytes())
    users = ["root", "student"] * 5
    projects = {user: cluster.project(user) for user in set(users)}

    def one(number: int) -> tuple[str, Path]:
        user, out = users[number], f"data/{number}"
        command = ("pack", "morph", "--images", images, "--out", out, "--val", 0, "--test", 0)
        (job,) = launch(cluster, projects[user], "--", *command, user=user)
        return job, projects[user] / out

    with ThreadPoolExecutor() as pool:
        started = list(pool.map(one, range(10)))
    assert len({job for job, _ in started}) == 10
    for job, out in started:
        assert cluster.wait(job, 180).code == 0, read_log(out.parent.parent, job)
        assert (out / "manifest.json").exists()
        (begin, end) = read_events(out, job)
        assert (begin["event"], end["event"]) == ("start", "end")


def begin(rigs: Rigs) -> None:
    """All of them."""
    rigs.start("chains", chain)
    rigs.start("from python", run_from_python)
    rigs.start("wild", lambda cluster, _: pack_wild(cluster, rigs.faces))
    rigs.start("ten", lambda cluster, _: submit_ten(cluster, rigs.faces))
    rigs.start("limits", lambda cluster, _: meet_limits(cluster), only="slurm")


def test_a_function_runs_from_python(rigs: Rigs) -> None:
    rigs.all("from python")


def run_from_python(cluster: Cluster, data: Path) -> None:
    """A function, by submitit."""
    project = cluster.project()
    done = cluster.run("python", "-c", SUBMITIT, cwd=project, environ={"CLUSTER": cluster.name})
    total, host, uid = eval(done.stdout)
    assert (total, uid) == (42, cluster.hosts.uid)
    assert host in cluster.nodes


def test_a_site_can_be_checked(cluster: Cluster) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    said = cluster.run("python", "-m", "hpcgender", "sites", "check", "--nodes", 2, cwd=project).stdout
    assert said.startswith(f"site site: {SCHEDULERS[cluster.name].title} could run 2 x 1 core, 1 GPU"), said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("cluster", "setting"), [("slurm", "queue"), ("sge", "queue"), ("sge", "pe")], indirect=["cluster"]
)
def test_what_the_cluster_does_not_have_is_refused_before_anything_is_submitted(
    cluster: Cluster, data: Mapping[Cluster, Path], setting: str
) -> None:
    project = cluster.project()
    site = {"queue": 'queue = "nowhere"\npe = "mpi"\n', "pe": 'pe = "nowhere"\n'}[setting]
    (project / "site.toml").write_text(f'scheduler = "{cluster.name}"\n{site}')
    command = ("--nodes", 2, "--", "train", "--data", data[cluster], *OPTIONS)
    for words in (("launch", *command), ("sites", "check", "--nodes", 2)):
        done = cluster.run("python", "-m", "hpcgender", *words, cwd=project, check=False)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.count("\n") == 1, done.stderr
        assert "nowhere" in done.stderr
    assert not (project / "runs").exists()


def test_what_could_never_start_is_refused(cluster: Cluster, data: Mapping[Cluster, Path]) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    command = ("--nodes", 4, "--", "train", "--data", data[cluster], *OPTIONS)
    done = cluster.run("python", "-m", "hpcgender.launch", *command, cwd=project, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    if cluster.name == "slurm":
        assert f"partition debug has {len(NODES)} nodes of {len(NODES)} with" in done.stderr
        unknown = ("--after", 99999, "--", "models")  # which would start at once
        after = cluster.run("python", "-m", "hpcgender.launch", *unknown, cwd=project, check=False)
        assert (after.returncode, after.stdout) == (2, ""), after
        assert "Slurm has no job 99999" in after.stderr


def test_limits_of_quality_of_service_and_account_are_told(rigs: Rigs) -> None:
    rigs.all("limits")


def meet_limits(slurm: Cluster) -> None:
    """What is said of jobs that a limit keeps for ever, that wait for others, and that are one too many."""
    project = slurm.project()

    def manage(line: str) -> None:
        slurm.run("sacctmgr", "--immediate", *line.split(), user="root")

    def ours(*words: object, check: bool = True) -> str:
        done = slurm.run("python", "-m", "hpcgender", *words, cwd=project, check=check)
        return done.stdout + done.stderr

    manage("add qos narrow")
    manage("modify qos narrow set GrpTRES=cpu=2 MaxSubmitJobsPerUser=2")
    manage("add account tiny parent=lab cluster=test")
    manage("modify account tiny set MaxWall=02:00:00")
    manage(f"add user {USER} account=tiny")
    manage(f"modify user {USER} set qos+=narrow")
    (project / "narrow.toml").write_text('scheduler = "slurm"\nqos = "narrow"\n')
    (project / "tiny.toml").write_text('scheduler = "slurm"\naccount = "tiny"\n')
    together = "quality of service narrow gives all of its jobs together at most 2 cores"
    said = ours("sites", "check", "--site", "narrow.toml", "--cpus", 3, check=False)
    assert said == f"hpcgender: site narrow: Slurm would never start check: {together}\n"
    said = ours("sites", "check", "--site", "tiny.toml", "--time", "3h", check=False)
    assert "would never start check: account tiny gives a job at most 02:00:00 of time\n" in said
    assert "Slurm could run" in ours("sites", "check", "--site", "narrow.toml", "--cpus", 2)

    (project / "wait.sh").write_text("#!/bin/bash\nsleep 600\n")
    submit = ("--qos=narrow", "--output=/dev/null")
    runs, waits = (slurm.submit(*submit, "--ntasks=2", "wait.sh", cwd=project) for _ in range(2))
    slurm.wait_until(lambda: "QOSGrpCpuLimit" in slurm.state(waits), 30, "it waits", lambda: slurm.state(waits))
    share = f"{together}: you use 2, others 0, and this job asks for 2"
    assert f"  QOSGrpCpuLimit: {answers.REASONS['QOSGrp']}\n  {share}\n" in ours("jobs", "why", waits)
    said = ours("sites", "check", "--site", "narrow.toml", check=False)
    assert "QOSMaxSubmitJobPerUserLimit" in said
    assert "(as many jobs wait and run as may be submitted: wait until one has ended)" in said
    slurm.cancel(waits)
    vain = slurm.submit(*submit, "--ntasks=3", "wait.sh", cwd=project)
    slurm.wait_until(lambda: "QOSGrpCpuLimit" in slurm.state(vain), 30, "it waits", lambda: slurm.state(vain))
    assert f"  it will never start: {together}\n" in ours("jobs", "why", vain)
    for job in (runs, vain):
        slurm.cancel(job)
    slurm.wait_until_idle(60)
    tell_not_now_from_never(slurm)


def tell_not_now_from_never(slurm: Cluster) -> None:
    """What is said of a job for which a node is drained at present, and of one above the partition's limit."""
    project = slurm.project()

    def ours(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return slurm.run("python", "-m", "hpcgender", *words, cwd=project, check=check)

    def control(*words: str) -> None:
        slurm.run("scontrol", "update", *words, user="root")

    control("NodeName=node3", "State=DRAIN", "Reason=test")
    try:
        said = ours("doctor", "--nodes", 3, "--model", "resnet18")
        (job,) = submitted(said.stdout)
        assert said.stderr == "launch: doctor: not now: no jobs are taken at present by node3\n"
        slurm.cancel(job)
        control("PartitionName=debug", "MaxTime=60")
        long = ours("sites", "check", "--site", "slurm", "--time", "2h", check=False)
        assert long.returncode == 2
        assert "Slurm would never start check: partition debug gives a job at most 01:00:00 of time\n" in long.stderr
    finally:
        control("PartitionName=debug", "MaxTime=INFINITE")
        control("NodeName=node3", "State=RESUME")
    slurm.wait_until(slurm.is_ready, 30, "node3 takes jobs")


def test_a_chain_runs_to_its_end(cluster: Cluster, rigs: Rigs) -> None:
    chain, _ = rigs.result("chains", cluster)
    assert [end.code for end in chain.ends] == [0, 0, 0], chain.logs
    run_dir = chain.project / "runs" / "train"
    assert list(run_dir.glob("evaluations/*/evaluation.json"))
    assert list(run_dir.glob("cams/*/sheet.png"))


def test_a_chain_whose_training_fails_ends_there(cluster: Cluster, rigs: Rigs) -> None:
    _, chain = rigs.result("chains", cluster)
    assert chain.ends[0].code not in (0, 99), chain.logs
    assert all(end.code or end.state.startswith("CANCELLED") for end in chain.ends[1:]), chain.ends
    run_dir = chain.project / "runs" / "train"
    assert not list(run_dir.glob("evaluations/*/evaluation.json"))
    assert not list(run_dir.glob("cams/*/sheet.png"))


def test_any_name_and_path_is_taken_as_it_is(rigs: Rigs) -> None:
    rigs.all("wild")


def test_ten_jobs_at_once(rigs: Rigs) -> None:
    rigs.all("ten")
