"""`hpcgender jobs` beside real schedulers: what it says of a run that works and one that waits, and cancelling both."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.scheduler import array_id
from jobs.schedulers import SCHEDULERS
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.training import OPTIONS, launch

HEADER = """#!/bin/bash
#$ -N early
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#SBATCH --job-name=early
#SBATCH --output=logs/%x.o%j
"""
EARLY = f"{HEADER}cd nowhere || exit 3\n"
"""A script that ends before it starts anything of this project."""
MANY = f"{HEADER}. .venv/bin/activate\npython -m hpcgender.launch -- pack synthetic --count 1000000 --out data/big\n"
"""A script whose tasks do not end in time."""


def states(cluster: Cluster, project: Path) -> list[str]:
    """The states of all runs, by the order of their submission."""
    said = cluster.run("python", "-m", "hpcgender", "jobs", "--json", cwd=project).stdout
    return [entry["state"] for entry in json.loads(said)["runs"]]


def begin(rigs: Rigs) -> None:
    """A run and what waits for it, on each cluster."""
    rigs.start("watched", watch, second=True)


def test_an_array_goes_by_the_id_that_was_printed(cluster: Cluster) -> None:
    project = cluster.project()
    (project / "early.sh").write_text(EARLY)
    array = cluster.submit(
        *{"slurm": ("--array=1-100", "--hold"), "sge": ("-t", "1-100", "-h")}[cluster.name], "early.sh", cwd=project
    )

    def jobs(*words: object) -> str:
        return cluster.run("python", "-m", "hpcgender", "jobs", *words, cwd=project).stdout

    def tasks() -> list[str]:
        waiting = json.loads(jobs("--json"))["without_record"]
        return [job["state"] for job in waiting if array_id(job["job"]) == array]

    assert tasks() == ["held"] * 100
    said = jobs("why", array)
    assert f"array {array}: 100 held; of these\n" in said
    first = f"{array}{'_' if cluster.name == 'slurm' else '.'}1"
    assert f"  hpcgender jobs cancel {first} cancels it, hpcgender jobs cancel {array} the whole array\n" in said
    assert jobs("cancel", array) == f"cancelled job {array}\n"
    assert tasks() == []


def test_a_run_and_what_waits_for_it_from_start_to_cancellation(rigs: Rigs) -> None:
    rigs.all("watched")


def watch(cluster: Cluster, data: Path) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    command = ("train", "--data", data, *OPTIONS, "--epochs", 9999)
    training, evaluation = launch(cluster, project, "--nodes", 2, "--chain", "eval", "--", *command)
    (waiting,) = launch(cluster, project, "--after", training, "--", "models")
    cluster.cancel(waiting)  # as somebody does who knows nothing of this project
    (project / "site.toml").write_text("edited meanwhile")  # the jobs are what was submitted
    failing, told = jobs_that_end_before_they_begin(cluster)

    def jobs(*words: object) -> str:
        return cluster.run("python", "-m", "hpcgender", "jobs", *words, cwd=project).stdout

    waits = {"slurm": "pending", "sge": "held"}[cluster.name]
    cluster.wait_until(
        lambda: states(cluster, project) == ["running", waits, "cancelled"],
        60,
        "one runs, one waits",
        lambda: jobs("--all"),
    )
    assert training in jobs("why", evaluation)
    if cluster.name == "sge":
        assert "  deleted before it started, as by qdel\n" in jobs("why", waiting)
    runs = f"job {training} on {SCHEDULERS[cluster.name].title}, attempt 1: running"
    cluster.wait_until(lambda: runs in jobs("why", "train"), 60, "its launcher has begun", lambda: jobs("why", "train"))
    refused = cluster.run("python", "-m", "hpcgender", "jobs", "resubmit", "train", cwd=project, check=False)
    assert refused.returncode == 2
    assert f"is running as job {training}" in refused.stderr

    assert jobs("cancel", "train") == f"cancelled job {training} (train)\n"
    ends = {"slurm": ["cancelled", "cancelled"], "sge": ["cancelled", "skipped"]}[cluster.name]
    cluster.wait_until(lambda: states(cluster, project)[:2] == ends, 90, "both have ended", lambda: jobs("--all"))
    assert "by hpcgender jobs cancel" in jobs("why", training)
    assert not any(map(cluster.job_processes, cluster.nodes))
    assert "launch: " in jobs("logs", "train")
    for job, says in told.items():
        cluster.wait(job, 60)
        assert says in cluster.run("python", "-m", "hpcgender", "jobs", "why", job, cwd=failing).stdout
    if cluster.name == "slurm":
        nothing_follows_what_failed(cluster, failing)
    cancel_tasks(cluster)


def nothing_follows_what_failed(cluster: Cluster, project: Path) -> None:
    """Gives --after a job that has failed, and that slurmctld has forgotten: accounting alone has it."""
    failed = cluster.submit("--output=/dev/null", "early.sh", cwd=project)
    cluster.wait_until(
        lambda: cluster.run("scontrol", "show", "job", failed, user="root", check=False).returncode,
        90,
        "it is forgotten",
    )
    cluster.wait(failed, 60)
    after = ("python", "-m", "hpcgender.launch", "--after", failed, "--", "verify", "nowhere")
    (project / "site.toml").write_text(cluster.site)
    refused = cluster.run(*after, cwd=project, check=False)
    assert (refused.returncode, refused.stdout) == (2, ""), refused
    assert (
        f"--after {failed}: job {failed} is failed (exit code 3), so that nothing will start after it" in refused.stderr
    )


def cancel_tasks(cluster: Cluster) -> None:
    """Cancels one task of an array that runs by its id, and the others by the name of their run."""
    project = cluster.project()
    (project / "many.sh").write_text(MANY)
    array = cluster.submit(*{"slurm": ("--array=1-3",), "sge": ("-t", "1-3")}[cluster.name], "many.sh", cwd=project)
    one = f"{array}{'_' if cluster.name == 'slurm' else '.'}2"

    def jobs(*words: object) -> str:
        return cluster.run("python", "-m", "hpcgender", "jobs", *words, cwd=project).stdout

    def running() -> list[str]:
        said = json.loads(jobs("data/big", "--all", "--json"))["runs"]
        return [entry["job"] for entry in said if entry["state"] == "running" and entry["attempt"]]

    begun = (project / "data" / "big" / "submissions").glob
    cluster.wait_until(lambda: len(list(begun("*/attempts.jsonl"))) == 3, 90, "three tasks pack", lambda: jobs("--all"))
    assert len(running()) == 3
    assert jobs("cancel", one) == f"cancelled job {one} (data/big)\n"
    cluster.wait_until(lambda: len(running()) == 2, 60, "one has ended", lambda: jobs("--all"))
    assert one not in running()
    assert jobs("cancel", "data/big") == f"cancelled job {array} (data/big)\n"
    cluster.wait_until_idle(60)
    assert running() == []


def jobs_that_end_before_they_begin(cluster: Cluster) -> tuple[Path, dict[str, str]]:
    """A project with jobs that are refused, that cannot be set up and that know no command, and why by their ids."""
    project = cluster.project()
    refused = cluster.submit("jobs/train_resnet152.sh", "--data", "nowhere", cwd=project)
    (project / "early.sh").write_text(EARLY)
    early = cluster.submit("early.sh", cwd=project)
    (project / "site.toml").write_text(f'{cluster.site}modules = ["cuda"]\n')
    (without,) = launch(cluster, project, "--", "models")
    more = {}
    if cluster.name == "slurm":  # Grid Engine keeps such a job in error
        logless = cluster.submit("--output=nowhere/%j", "early.sh", cwd=project)
        more[logless] = "its log could not be opened: make the directory that --output names"
    return project, more | {
        refused: "no manifest.json in nowhere",
        early: "cd: nowhere: No such file or directory",
        without: "launch: site site: modules: there is no command module on node",
    }
