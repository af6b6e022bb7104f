"""A training on two nodes whose time runs out, that loses a node, whose processes are killed, that is cancelled."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import OnBoth, Pools
from tests.cluster.training import (
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

pytestmark = pytest.mark.timeout(1200)  # a case waits for its turn in the queue, too


def ended(cluster: Cluster, job: str, project: Path, timeout: float = 300) -> Training:
    """The training of `launch_training` once its job has ended, and has left no process behind."""
    end = cluster.wait(job, timeout)
    cluster.wait_until_idle()
    return Training(job=job, project=project, end=end, run_dir=project / "runs" / "small")


@pytest.fixture(scope="module")
def limited(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[Training]]:
    """A training whose time limit comes before its end."""

    def limit(cluster: Cluster) -> Training:
        job, project = launch_training(cluster, data[cluster], "--time", "4m")
        wait_for_checkpoint(cluster, project, job)
        signal_ranks(cluster, signal.SIGSTOP)  # a training that takes longer, and no processor
        cluster.wait_until(
            lambda: are_asked_to_stop(cluster) or cluster.end(job),
            300,
            "the ranks are asked to stop",
            lambda: f"{cluster.state(job)}\n{read_log(project, job)}",
        )
        hurry(cluster)
        signal_ranks(cluster, signal.SIGCONT)
        return ended(cluster, job, project)

    return on_both(limit)


@pytest.fixture(scope="module")
def lost(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[Training]]:
    """A training of which a node loses power, and has it again when the job waits: of Slurm its first one.

    Grid Engine looks after the first node itself, and the launcher there after the others.
    """

    def lose(cluster: Cluster) -> Training:
        job, project = launch_training(cluster, data[cluster])
        wait_for_checkpoint(cluster, project, job)
        (begin,) = read_events(project / "runs" / "small", job)
        node = begin["hosts"][0 if cluster.name == "slurm" else 1]
        running = cluster.state(job)
        cluster.cut_power(node)
        cluster.wait_until(lambda: cluster.state(job) != running, 120, "the loss is noticed", lambda: running)
        cluster.restore_power(node)
        return ended(cluster, job, project)

    return on_both(lose)


@pytest.fixture(scope="module")
def killed(
    on_both: OnBoth, data: Mapping[Cluster, Path], trained: Mapping[str, Future[Training]]
) -> Mapping[str, Future[None]]:
    """A training whose processes on one node are killed, and whether nothing is lost by it."""

    def kill(cluster: Cluster) -> None:
        job, project = launch_training(cluster, data[cluster])
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
            command = ("train", "--data", data[cluster], *OPTIONS, "--name", "small", "--resume")
            (job,) = launch(cluster, project, "--nodes", 2, "--", *command)
            training = ended(cluster, job, project)
        assert training.end.code == 0, training.log
        assert "resuming runs/small" in training.log
        expected = trained[cluster.name].result().weights
        assert all(training.weights[name].equal(value) for name, value in expected.items())

    return on_both(kill, late=True)


@pytest.fixture(scope="module")
def cancelled(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[None]]:
    """A training that is cancelled, and whether anything of it is left; of Slurm one that was asked to stop before."""

    def cancel(cluster: Cluster) -> None:
        job, project = launch_training(cluster, data[cluster], user="root")
        if cluster.name == "slurm":
            ask_from_the_first_moment(cluster, project / "runs" / "small", job)
        wait_for_checkpoint(cluster, project, job)
        cluster.cancel(job, user="root")
        cluster.wait_until_idle(60)
        end = cluster.wait(job, 60)
        assert end.code != 0
        log = read_log(project, job)
        requeues = log.replace("not requeued: cancelled", "").count("requeued")
        assert requeues == (1 if cluster.name == "slurm" else 0), log

    return on_both(cancel)


def ask_from_the_first_moment(cluster: Cluster, run_dir: Path, job: str) -> None:
    """Asks the job's first process alone to stop, from when it starts until it does: by no request it is killed."""

    def ask() -> bool:
        if cluster.state(job).startswith("RUNNING"):
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


@pytest.fixture(scope="module")
def lost_early(on_both: OnBoth, data: Mapping[Cluster, Path]) -> Mapping[str, Future[None]]:
    """What comes of the loss of a second host before anything has started there."""
    return on_both(lambda cluster: lose_early(cluster, data[cluster]))


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


@pytest.fixture(scope="module")
def put_back(slurm: Cluster, pools: Pools, data: Mapping[Cluster, Path]) -> Future[Training]:
    """A training on Slurm of which the second node is started again, and which Slurm itself then requeues."""

    def interrupt() -> Training:
        job, project = launch_training(slurm, data[slurm])
        run_dir = project / "runs" / "small"
        wait_for_checkpoint(slurm, project, job)
        (begin,) = read_events(run_dir, job)
        slurm.cut_power(begin["hosts"][1])
        time.sleep(2)
        slurm.restore_power(begin["hosts"][1])
        slurm.wait_until(
            lambda: "resuming runs/small" in read_log(project, job) or slurm.end(job),
            120,
            "it trains again",
            lambda: f"{slurm.state(job)}\n{read_log(project, job)}",
        )
        slurm.run("scontrol", "requeue", job, user="root")  # as when it is preempted
        return ended(slurm, job, project)

    return pools[slurm].submit(interrupt)


@pytest.fixture(scope="module", autouse=True)
def queued(
    limited: object, lost: object, killed: object, put_back: object, cancelled: object, lost_early: object
) -> None:
    """All of them from the start: a cluster goes on with the next while the other is at one before."""


@pytest.mark.parametrize("how", ["limited", "lost"])
def test_it_is_requeued_and_ends_with_the_weights_of_an_uninterrupted_run(
    how: str, cluster: Cluster, trained: Mapping[str, Future[Training]], request: pytest.FixtureRequest
) -> None:
    training: Training = request.getfixturevalue(how)[cluster.name].result()
    check_attempts(training, trained[cluster.name].result())
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
    assert list(dict.fromkeys(epochs)) == [f"{number}/4" for number in range(1, 5)], training.log


def test_killed_processes_of_one_node_end_the_job_everywhere_and_lose_nothing(
    killed: Mapping[str, Future[None]],
) -> None:
    for outcome in killed.values():
        outcome.result()


def test_an_early_request_requeues_and_cancelling_leaves_nothing_running_and_nothing_queued(
    cancelled: Mapping[str, Future[None]],
) -> None:
    for outcome in cancelled.values():
        outcome.result()


def test_a_node_that_is_lost_before_anything_starts_there_is_noticed_without_the_scheduler(
    lost_early: Mapping[str, Future[None]],
) -> None:
    for outcome in lost_early.values():
        outcome.result()


def test_a_node_that_was_started_again_and_what_slurm_puts_back_itself_lose_nothing(
    put_back: Future[Training], trained: Mapping[str, Future[Training]]
) -> None:
    training = put_back.result()
    check_attempts(training, trained["slurm"].result(), attempts=3)
    ends = [event for event in training.events if event["event"] == "end"]
    assert [(end["code"], end["requeued"]) for end in ends] == [(99, True), (99, True), (0, False)], training.events
    assert f"{training.events[0]['hosts'][1]} was lost" in training.log, training.log
    assert "launch: requeued by Slurm" in training.log
