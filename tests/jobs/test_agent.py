"""An agent's exit codes and words, with real ranks under the real torch.distributed.run."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs import agent
from jobs.agent import PORT_TAKEN
from jobs.hosts import processes
from jobs.hosts.supervisor import FIRST_LOST, REPORTED
from shard_tools.base.errors import FAILED
from shard_tools.base.storage import MANY_FILES

HOST = socket.gethostname()


def start(*arguments: str, options: tuple[str, ...] = ("--nproc-per-node=2",)) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.agent", *options, "-m", "tests.jobs.program", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str, options: tuple[str, ...] = ("--nproc-per-node=2",)) -> tuple[int, str, str]:
    with start(*arguments, options=options) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_a_killed_rank_is_one_line() -> None:
    code, out, err = finish("killed", "1")
    assert (code, out) == (1, "")
    assert err == f"agent on {HOST}: rank 1 failed: killed by SIGKILL (often: out of memory)\n"


def test_term_reaches_ranks_and_their_code_counts(tmp_path: Path) -> None:
    with start("wait", str(tmp_path)) as agent:
        deadline = time.monotonic() + 300
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        agent.send_signal(signal.SIGUSR2)
        out, err = agent.communicate(timeout=30)
        assert (agent.returncode, out, err) == (99, "", "")


def test_ranks_may_open_as_many_files_as_the_machine_lets_them() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        code, out, err = finish("files", options=("--nproc-per-node=1",))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (code, err) == (0, "")
    assert int(out) == min(hard if hard != resource.RLIM_INFINITY else MANY_FILES, MANY_FILES)


def test_a_taken_port_has_its_own_code() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        options = ("--nnodes=2", "--node-rank=0", "--nproc-per-node=1", f"--master-port={port}")
        assert finish("sum", options=options) == (PORT_TAKEN, "", "")


def test_nodes_that_do_not_join_are_one_line() -> None:
    options = ("--nnodes=2", "--node-rank=0", "--nproc-per-node=1", "--master-port=0", "--rdzv-conf=timeout=1")
    code, _, err = finish("sum", options=options)
    assert code == 1
    assert err.startswith(f"agent on {HOST}: no rendezvous with the other nodes: ")
    assert err.count("\n") == 1


IMPATIENT = """
import sys
from jobs import agent
from jobs.hosts import presence
presence._SECONDS, presence.MEET_SECONDS = 0.3, 1.0
agent.main(sys.argv[1:])
"""


def impatient(port: int, seconds: int) -> "subprocess.CompletedProcess[str]":
    """The agent of a second host that waits for an answer of the first for a second, and for the others `seconds`."""
    options = ("--lifeline", "--nnodes=2", "--node-rank=1", "--nproc-per-node=1", "--master-addr=127.0.0.1")
    meet = (f"--master-port={port}", f"--rdzv-conf=timeout={seconds}")
    command = [sys.executable, "-c", IMPATIENT, *options, *meet, "-m", "tests.jobs.program", "sum"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr
        err = agent.stderr.read()
        return subprocess.CompletedProcess(command, agent.wait(60), None, err)


def test_a_first_host_that_gives_no_answer_at_the_rendezvous_port_is_one_line() -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, contextlib.ExitStack() as stack:  # what is beyond the backlog gets no answer, as from a firewall
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        done = impatient(port, 300)
    assert done.returncode == REPORTED
    assert done.stderr.startswith(f"agent on {HOST}: no answer from 127.0.0.1 at TCP port {port} for 1 s: a firewall")
    assert done.stderr.count("\n") == 1


def test_a_first_host_where_nothing_listens_yet_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = impatient(port, 5)
    assert done.returncode == REPORTED
    assert "no rendezvous with the other nodes: " in done.stderr, done.stderr
    assert "no answer" not in done.stderr


@pytest.mark.parametrize("lost", [True, False])
def test_an_agent_that_loses_the_launchers_host_has_its_own_code(lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of its two threads ends it may differ: the one that reads the lifeline, or the one that ran the ranks."""
    line = processes.Lifeline(stdin=False)
    if lost:
        line.lost.set()
    over, main = threading.Event(), threading.current_thread()

    def silent(seconds: float | None) -> None:  # the ranks end first
        over.wait()

    def left(code: int, scratch: str) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        if threading.current_thread() is main:
            raise SystemExit(code)

    monkeypatch.setattr(line, "read", silent)
    monkeypatch.setattr(agent, "leave", left)
    monkeypatch.setattr(processes, "leaders", list)  # of this process they are other tests'
    monkeypatch.setattr(processes, "Lifeline", lambda **_: line)
    monkeypatch.setattr(agent, "run_alone", lambda argv, overseer: FAILED)
    with pytest.raises(SystemExit) as by_ranks:
        agent.main(["--lifeline", "--alone", "-m", "nothing"])
    assert by_ranks.value.code == (FIRST_LOST if lost else REPORTED)
    monkeypatch.setattr(line, "read", lambda seconds: None)
    with pytest.raises(SystemExit) as by_lifeline:
        agent.Overseer(line, "", REPORTED).run()
    assert by_lifeline.value.code == (FIRST_LOST if lost else FAILED)
    over.set()
    for thread in threading.enumerate():
        if isinstance(thread, agent.Overseer):
            thread.join()  # while it finds those stand-ins


def test_alone_a_module_keeps_its_exit_code_and_a_stop_asks_to_be_started_again() -> None:
    options = ("--alone", "-m", "http.server", "--nonsense")
    command = [sys.executable, "-m", "jobs.agent", *options]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode == 2
    assert "--nonsense" in wrong.stderr
    with subprocess.Popen([*command[:-1], "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        deadline = time.monotonic() + 300
        while not is_parent(agent.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        agent.send_signal(signal.SIGTERM)
        _, err = agent.communicate(timeout=30)
    assert (agent.returncode, err) == (99, "")


def is_parent(pid: int) -> bool:
    """Whether the process has a child that leads a session, as the module does that an agent runs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(os.getsid(int(child)) == int(child) for child in children)
