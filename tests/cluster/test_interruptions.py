"""A training on two nodes whose time runs out, that loses a node, whose processes are killed, that is cancelled."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.training import (
    EPOCHS,
    OPTIONS,
    Training,
    are_asked_to_stop,
    hurry,
    launch,
    launch_training,
    read_events,
    read_log,
    signal_ranks,
    wait_for_checkpoint,
)


def ended(cluster: Cluster, job: str, project: Path, timeout: float = 300) -> Training:
    """The training of `launch_training` once its job has ended, and has left no process behind."""
    end = cluster.wait(job, timeout)
    cluster.wait_until_idle()
    return Training(job=job, project=project, end=end, run_dir=project / "runs" / "small")


def limit(cluster: Cluster, data: Path) -> Training:
    """A training whose time limit comes before its end."""
    job, project = launch_training(cluster, data, "--time", "4m")
    wait_for_checkpoint(cluster, project, job, hurry)
    signal_ranks(cluster, signal.SIGSTOP)  # a training that takes longer, and no processor
    cluster.wait_until(
        lambda: are_asked_to_stop(cluster) or cluster.end(job),
        400,
        "the ranks are asked to stop",
        lambda: f"{cluster.state(job)}\n{read_log(project, job)}",
    )
    hurry(cluster)
    signal_ranks(cluster, signal.SIGCONT)
    return ended(cluster, job, project)


def lose(cluster: Cluster, data: Path) -> Training:
    """A training of which a node loses power, and has it again once it goes on on others: of Slurm its first one.

    Grid Engine looks after the first node itself, and the launcher there after the others.
    """
    job, project = launch_training(cluster, data)
    wait_for_checkpoint(cluster, project, job)
    (begin,) = read_events(project / "runs" / "small", job)
    node = begin["hosts"][0 if cluster.name == "slurm" else 1]
    cluster.cut_power(node)
    wait_for_the_next_attempt(cluster, job, project)
    cluster.restore_power(node)
    return ended(cluster, job, project)


def kill(cluster: Cluster, data: Path) -> Training:
    """A training whose processes on one node are killed; of Grid Engine one that is submitted again then."""
    job, project = launch_training(cluster, data)
    wait_for_checkpoint(cluster, project, job)
    (begin,) = read_events(project / "runs" / "small", job)
    node = begin["hosts"][1]
    for pid, line in cluster.job_processes(node).items():
        if "python" in line:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    training = ended(cluster, job, project)
    assert f"launch: everything on {node} was killed" in training.log, training.log
    if cluster.name == "sge":  # which deletes a job of which a task was killed; Slurm's is requeued
        assert training.end.code != 0, training.log
        command = ("train", "--data", data, *OPTIONS, "--name", "small", "--resume")
        (job,) = launch(cluster, project, "--nodes", 2, "--", *command)
        training = ended(cluster, job, project)
    return training


def cancel(cluster: Cluster, data: Path) -> None:
    """A training that is cancelled, and whether anything of it is left; of Slurm one that was asked to stop before."""
    job, project = launch_training(cluster, data, user="root")
    if cluster.name == "slurm":
        ask_from_the_first_moment(cluster, project / "runs" / "small", job)
    wait_for_checkpoint(cluster, project, job)
    cluster.cancel(job, user="root")
    cluster.wait_until_idle(60)
    end = cluster.wait(job, 60)
    assert end.code != 0
    log = read_log(project, job)
    requeues = log.replace("not requeued: cancelled", "").count("requeued")
    # A signal that was on its way when the first attempt ended reaches the next one, which is requeued as well.
    asked = [one for one in read_events(project / "runs" / "small", job) if one.get("stopped_by") == "SIGUSR1"]
    assert requeues == len(asked), log
    assert bool(asked) == (cluster.name == "slurm"), log


def ask_from_the_first_moment(cluster: Cluster, run_dir: Path, job: str) -> None:
    """Asks the job's first process alone to stop, from when it starts until it does: by no request it is killed."""

    def ask() -> bool:
        # Its next attempt starts seconds after this one's end is recorded, and is not asked.
        if cluster.state(job).startswith("RUNNING") and len(read_events(run_dir, job)) < 2:
            cluster.run("scancel", "--batch", "--signal=USR1", job, user="root", check=False)
        return len(read_events(run_dir, job)) > 1 or cluster.end(job) is not None

    cluster.wait_until(ask, 120, f"job {job} has stopped", lambda: cluster.state(job))
    end = read_events(run_dir, job)[1]
    assert (end["code"], end["requeued"], end["stopped_by"]) == (99, True, "SIGUSR1")


HELD = """#!/bin/bash
case "$*" in *--node-rank=1*) [ ! -e "${0%/*}/hold" ] || { touch "${0%/*}/held"; exec sleep 600; } ;; esac
exec "$@"
"""
"""What starts Python on the hosts: on the second one it waits as long as there is a file `hold` beside it."""


def lose_early(cluster: Cluster, data: Path) -> None:
    """Cuts the power of a job's second host while that starts Python; the job is to begin again, without the host."""
    place = cluster.directory / "early"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    (place / "held.sh").write_text(HELD)
    (place / "held.sh").chmod(0o755)
    python = f'container = "{place}/held.sh"\ncontainer_python = "{sys.executable}"\n'
    (place / "site.toml").write_text(cluster.site + python)
    (place / "hold").touch()
    patient(cluster, True)
    job, project = launch_training(cluster, data, "--site", place / "site.toml")
    run_dir = project / "runs" / "small"
    cluster.wait_until((place / "held").exists, 120, "it starts", lambda: read_log(project, job))
    (begin,) = read_events(run_dir, job)
    (place / "hold").unlink()
    cluster.cut_power(begin["hosts"][1])
    lost = f"launch: {begin['hosts'][1]} was lost\n"
    cluster.wait_until(lambda: lost in read_log(project, job), 60, "it is noticed", lambda: read_log(project, job))
    cluster.wait_until(lambda: len(read_events(run_dir, job)) > 1, 120, "it has ended")
    cluster.restore_power(begin["hosts"][1])
    patient(cluster, False)
    end = read_events(run_dir, job)[1]
    assert (end["code"], end["requeued"]) == (99, True), end
    cluster.wait_until(lambda: len(read_events(run_dir, job)) > 2, 180, "it begins again", lambda: cluster.state(job))
    cluster.cancel(job)
    cluster.wait(job, 60)
    cluster.wait_until_idle(60)


def patient(cluster: Cluster, patient: bool) -> None:
    """Makes Slurm wait for a lost host as long as it does where that was not changed, or no longer."""
    if cluster.name == "slurm":
        change = f"s/^SlurmdTimeout=.*/SlurmdTimeout={300 if patient else 20}/"
        cluster.run("sed", "-i", change, cluster.environ["SLURM_CONF"], user="root")
        cluster.run("scontrol", "reconfigure", user="root")


def put_back(slurm: Cluster, data: Path) -> Training:
    """A training on Slurm of which the second node is started again, and which Slurm itself then requeues."""
    job, project = launch_training(slurm, data)
    run_dir = project / "runs" / "small"
    wait_for_checkpoint(slurm, project, job)
    (begin,) = read_events(run_dir, job)
    slurm.cut_power(begin["hosts"][1])
    time.sleep(2)
    slurm.restore_power(begin["hosts"][1])
    wait_for_the_next_attempt(slurm, job, project)
    slurm.run("scontrol", "requeue", job, user="root")  # as when it is preempted
    training = ended(slurm, job, project)
    columns = ("-X", "-n", "-P", "--duplicates", "-o", "Start")
    said = slurm.run("sacct", *columns, "-j", job, environ={"SLURM_TIME_FORMAT": "standard"}).stdout
    accounted = [datetime.fromisoformat(start).timestamp() for start in said.split()]
    began = [event["time"] for event in training.events if event["event"] == "start"]
    # Each before its launcher, and after the attempt before: so accounting that lags behind is known as such.
    assert sorted([*accounted, *began]) == [time for pair in zip(accounted, began, strict=True) for time in pair], said
    return training


def wait_for_the_next_attempt(cluster: Cluster, job: str, project: Path) -> None:
    """Waits until the training of `launch_training` has resumed."""
    cluster.wait_until(
        lambda: "resuming runs/small" in read_log(project, job) or cluster.end(job),
        150,
        "it trains again",
        lambda: f"{cluster.state(job)}\n{read_log(project, job)}",
        pause=0.2,  # it does so for seconds
    )


def begin(rigs: Rigs) -> None:
    """All of them."""
    rigs.start("limited", limit)
    rigs.start("lost", lose)
    rigs.start("killed", kill, second=True)
    rigs.start("put back", put_back, second=True, only="slurm")
    rigs.start("cancelled", cancel, second=True)
    rigs.start("lost early", lose_early)


@pytest.mark.parametrize("how", ["limited", "lost"])
def test_it_is_requeued_and_ends_with_the_weights_of_an_uninterrupted_run(
    how: str, cluster: Cluster, rigs: Rigs
) -> None:
    training: Training = rigs.result(how, cluster)
    check_attempts(training, rigs.result("trained", cluster))
    if how == "limited":
        assert (training.events[1]["code"], training.events[1]["stopped_by"]) == (99, "time limit")


def check_attempts(training: Training, uninterrupted: Training, attempts: int = 2) -> None:
    """Checks that each attempt of a training has gone on where the last one left it, to the weights of one alone."""
    assert training.end.code == 0, f"{training.end}\n{training.events}\n{training.log}"
    assert all(training.weights[name].equal(value) for name, value in uninterrupted.weights.items())
    starts = [event for event in training.events if event["event"] == "start"]
    assert [event["attempt"] for event in starts] == [*range(1, attempts + 1)], training.events
    assert 0 < starts[1]["progress"] < training.events[-1]["progress"]
    assert training.events[-1]["code"] == 0
    # One log: each attempt is appended, and goes on with the next epoch.
    assert training.log.count("resuming runs/small") == attempts - 1
    epochs = [line.split()[1] for line in training.log.splitlines() if line.startswith("epoch ")]
    assert list(dict.fromkeys(epochs)) == [f"{number}/{EPOCHS}" for number in range(1, EPOCHS + 1)], training.log


def test_killed_processes_of_one_node_end_the_job_everywhere_and_lose_nothing(rigs: Rigs) -> None:
    uninterrupted = rigs.all("trained")
    for kind, training in rigs.all("killed").items():
        assert training.end.code == 0, training.log
        assert "resuming runs/small" in training.log
        assert all(training.weights[name].equal(value) for name, value in uninterrupted[kind].weights.items())


def test_an_early_request_requeues_and_cancelling_leaves_nothing_running_and_nothing_queued(rigs: Rigs) -> None:
    rigs.all("cancelled")


def test_a_node_that_is_lost_before_anything_starts_there_is_noticed_without_the_scheduler(rigs: Rigs) -> None:
    rigs.all("lost early")


def test_a_node_that_was_started_again_and_what_slurm_puts_back_itself_lose_nothing(rigs: Rigs) -> None:
    uninterrupted = rigs.all("trained")["slurm"]
    (training,) = rigs.all("put back").values()
    check_attempts(training, uninterrupted, attempts=3)
    ends = [event for event in training.events if event["event"] == "end"]
    assert [(end["code"], end["requeued"]) for end in ends] == [(99, True), (99, True), (0, False)], training.events
    assert f"{training.events[0]['hosts'][1]} was lost" in training.log, training.log
    assert "launch: requeued by Slurm" in training.log
