"""Jobs of several tasks: real processes on this machine, with a qrsh that starts the other host's part here."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HOST = socket.gethostname()
QRSH = """#!/bin/bash
# qrsh -inherit -V HOST COMMAND; at TERM it leaves the command and ends with 0, as when the host is lost
trap 'exit 0' TERM
echo $$ > qrsh
shift 3
bash -c "$*" <&0 &
wait $!
"""


class Cluster:
    """Two hosts that are this machine, and the directory in which the tasks of the tests run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.install("qrsh", QRSH)
        (directory / "hosts").write_text("localhost 2 all.q\nnode2 2 all.q\n")

    def install(self, name: str, text: str) -> None:
        (self.directory / "bin").mkdir(exist_ok=True)
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, command: str, *options: str, tasks: int = 1) -> "subprocess.Popen[str]":
        arguments = [str(self.directory / "logs"), "--nodes", "2", "--tasks-per-node", str(tasks), *options]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.sge.tasks", *arguments, "--", command],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{self.directory / 'bin'}:/usr/bin:/bin",
                "PYTHONPATH": str(Path(__file__).parents[3]),
                "PE_HOSTFILE": str(self.directory / "hosts"),
                "SUBMITIT_EXECUTOR": "sge",
                "JOB_ID": "12",
                "SGE_TASK_ID": "undefined",
            },
        )

    def run(self, command: str, *options: str, tasks: int = 1) -> tuple[int, str]:
        """The job's exit code, and what it wrote."""
        with self.start(command, *options, tasks=tasks) as job:
            err = job.communicate(timeout=60)[1]
        return job.returncode, err

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: all((self.directory / name).exists() for name in names))


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


RANK = "${SUBMITIT_SGE_GLOBAL_RANK}"
UP = f"echo $$ > pid-{RANK}; mv pid-{RANK} up-{RANK}; "
"""Each task leaves its pid."""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "logs").mkdir()
    return Cluster(tmp_path)


def test_tasks_know_their_places_and_have_logs_of_their_own(cluster: Cluster) -> None:
    places = "$SUBMITIT_SGE_NODE $SUBMITIT_SGE_LOCAL_RANK $SUBMITIT_SGE_NUM_TASKS $SUBMITIT_SGE_HOSTS"
    assert cluster.run(f"echo {RANK} {places}; echo oh >&2", tasks=2) == (0, "")
    for rank in range(4):
        log = cluster.directory / "logs" / f"12_{rank}_log.out"
        assert log.read_text() == f"{rank} {rank // 2} {rank % 2} 4 localhost,node2\n"
        assert log.with_suffix(".err").read_text() == "oh\n"
    assert cluster.run("echo out; echo err >&2", "--stderr-to-stdout") == (0, "")
    assert (cluster.directory / "logs" / "12_1_log.out").read_text().endswith("out\nerr\n")


def test_others_go_on_when_a_task_fails(cluster: Cluster) -> None:
    fails = f"if [ {RANK} = 1 ]; then touch failed; exit 3; fi; "
    code, err = cluster.run(f"{fails} until [ -e failed ]; do sleep 0.1; done; sleep 0.5; touch done")
    assert (code, err) == (1, f"task 1 on {HOST} failed: exit code 3\n")
    assert (cluster.directory / "done").exists()


def test_a_task_that_is_killed_fails(cluster: Cluster) -> None:
    code, err = cluster.run(f"[ {RANK} = 1 ] || exit 0; kill -9 $$")
    assert (code, err) == (1, f"task 1 on {HOST} failed: killed by SIGKILL (often: out of memory)\n")


def test_a_request_to_requeue_ends_all_and_forgets_the_results(cluster: Cluster) -> None:
    result = f"touch logs/12_{RANK}_result.pkl; "
    code, err = cluster.run(f"{result} {UP} [ {RANK} = 0 ] && exec sleep 600; until [ -e up-0 ]; do :; done; exit 99")
    assert code == 99
    assert "left to exit code 99" in err  # there is no Grid Engine here that could put it back
    assert not list(cluster.directory.glob("logs/*.pkl"))
    assert not is_running(int((cluster.directory / "up-0").read_text()))


def test_signals_reach_all_tasks(cluster: Cluster) -> None:
    waits = f"trap 'echo got; exit 0' USR2; {UP} while :; do sleep 0.1; done"
    with cluster.start(waits, tasks=2) as job:
        cluster.wait_for("up-0", "up-1", "up-2", "up-3")
        job.send_signal(signal.SIGUSR2)
        assert job.communicate(timeout=30)[1] == ""
    assert job.returncode == 0
    assert [(cluster.directory / "logs" / f"12_{rank}_log.out").read_text() for rank in range(4)] == ["got\n"] * 4


@pytest.mark.parametrize(("options", "code"), [((), 99), (("--no-rerun",), 1)])
def test_a_lost_host_ends_the_others_and_asks_for_a_requeue(
    options: tuple[str, ...], code: int, cluster: Cluster
) -> None:
    with cluster.start(f"{UP} exec sleep 600", *options) as job:
        cluster.wait_for("up-0", "up-1")
        os.kill(int((cluster.directory / "qrsh").read_text()), signal.SIGTERM)
        err = job.communicate(timeout=30)[1]
        assert job.returncode == code
        assert "job of several tasks: node2 is lost\n" in err
    pids = [int((cluster.directory / f"up-{rank}").read_text()) for rank in range(2)]
    wait_until(lambda: not any(map(is_running, pids)))


def test_nothing_is_left_when_the_first_hosts_part_is_killed(cluster: Cluster) -> None:
    with cluster.start(f"{UP} sleep 600") as job:
        cluster.wait_for("up-0", "up-1")
        pids = [int((cluster.directory / f"up-{rank}").read_text()) for rank in range(2)]
        job.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_a_host_on_which_nothing_starts_is_named(cluster: Cluster) -> None:
    cluster.install("qrsh", "#!/bin/sh\necho error: commlib error >&2; exit 1\n")
    code, err = cluster.run(f"{UP} exec sleep 600")
    assert code == 1
    assert "nothing starts on node2: try `qrsh -inherit node2 hostname` in a job" in err
