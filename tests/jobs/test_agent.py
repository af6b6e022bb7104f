"""An agent's exit codes and words, with real ranks under the real torch.distributed.run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from jobs.agent import PORT_TAKEN

HOST = socket.gethostname()


def start(*arguments: str, options: tuple[str, ...] = ("--nproc-per-node=2",)) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.agent", *options, "-m", "tests.jobs.program", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str, options: tuple[str, ...] = ("--nproc-per-node=2",)) -> tuple[int, str, str]:
    with start(*arguments, options=options) as agent:
        out, err = agent.communicate(timeout=60)
        return agent.returncode, out, err


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
