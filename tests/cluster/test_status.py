"""`hpcgender jobs` beside real schedulers: what it says of a run that works and one that waits, and cancelling both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from jobs.scheduler import array_id
from jobs.schedulers import SCHEDULERS
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.conftest import OnBoth
from tests.cluster.training import OPTIONS, launch

EARLY = """#!/bin/bash
#$ -N early
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#SBATCH --job-name=early
#SBATCH --output=logs/%x.o%j
cd nowhere || exit 3
"""
"""A script that ends before it starts anything of this project."""


def states(cluster: Cluster, project: Path) -> list[str]:
    """The states of all runs, by the order of their submission."""
    said = cluster.run("python", "-m", "hpcgender", "jobs", "--json", cwd=project).stdout
    return [entry["state"] for entry in json.loads(said)["runs"]]


@pytest.fixture(scope="module", autouse=True)
def watched(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[None]]:
    """A run and what waits for it, on each cluster."""
    return on_both(lambda cluster: watch(cluster, data[cluster]), late=True)


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


def test_a_run_and_what_waits_for_it_from_start_to_cancellation(watched: Mapping[str, Future[None]]) -> None:
    for outcome in watched.values():
        outcome.result()


def watch(cluster: Cluster, data: Path) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    command = ("train", "--data", data, *OPTIONS, "--epochs", 9999)
    training, evaluation = launch(cluster, project, "--nodes", 2, "--chain", "eval", "--", *command)
    (project / "site.toml").write_text("edited meanwhile")  # the jobs are what was submitted
    failing, told = jobs_that_end_before_they_begin(cluster)

    def jobs(*words: object) -> str:
        return cluster.run("python", "-m", "hpcgender", "jobs", *words, cwd=project).stdout

    waits = {"slurm": "pending", "sge": "held"}[cluster.name]
    cluster.wait_until(
        lambda: states(cluster, project) == ["running", waits], 60, "one runs, one waits", lambda: jobs("--all")
    )
    assert training in jobs("why", evaluation)
    runs = f"job {training} on {SCHEDULERS[cluster.name].title}, attempt 1: running"
    cluster.wait_until(lambda: runs in jobs("why", "train"), 60, "its launcher has begun", lambda: jobs("why", "train"))
    refused = cluster.run("python", "-m", "hpcgender", "jobs", "resubmit", "train", cwd=project, check=False)
    assert refused.returncode == 2
    assert f"is running as job {training}" in refused.stderr

    assert jobs("cancel", "train") == f"cancelled job {training} (train)\n"
    ends = {"slurm": ["cancelled", "cancelled"], "sge": ["cancelled", "skipped"]}[cluster.name]
    cluster.wait_until(lambda: states(cluster, project) == ends, 90, "both have ended", lambda: jobs("--all"))
    assert "by hpcgender jobs cancel" in jobs("why", training)
    assert not any(map(cluster.job_processes, NODES))
    assert "launch: " in jobs("logs", "train")
    for job, says in told.items():
        cluster.wait(job, 60)
        assert says in cluster.run("python", "-m", "hpcgender", "jobs", "why", job, cwd=failing).stdout


def jobs_that_end_before_they_begin(cluster: Cluster) -> tuple[Path, dict[str, str]]:
    """A project with jobs that are refused, that cannot be set up and that know no command, and why by their ids."""
    project = cluster.project()
    refused = cluster.submit("jobs/train_resnet152.sh", "--data", "nowhere", cwd=project)
    (project / "early.sh").write_text(EARLY)
    early = cluster.submit("early.sh", cwd=project)
    (project / "site.toml").write_text(f'{cluster.site}modules = ["cuda"]\n')
    (without,) = launch(cluster, project, "--", "models")
    return project, {
        refused: "no manifest.json in nowhere",
        early: "cd: nowhere: No such file or directory",
        without: "launch: site site: modules: there is no command module on node",
    }
