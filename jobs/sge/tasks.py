"""The first host's part of a job of several tasks: starts a node's part on every host and waits for all.

Other hosts are reached through `qrsh -inherit`. Its exit code alone is not trusted, and nobody else tells when a host
is lost: Grid Engine runs a job again only if it loses the first. So each node's part says on its standard output that
it lives, and at last how its tasks ended. Its standard input is its lifeline: see `node`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from .environment import SgeJobEnvironment
from .hostfile import granted_hosts
from .node import ALIVE, BEAT_SECONDS, ENDED
from .qstat import REQUEUE
from .requeue import put_back

LOST_SECONDS = 6 * BEAT_SECONDS
"""How long a node may be silent before it is taken for lost."""

START_SECONDS = 300.0
"""How long a node's part may take to start; a cold Python environment on network storage takes a minute."""

END_SECONDS = 15.0
"""How long a node's part may take to end its tasks."""


class Node:
    """A node's part of the job, as the first host sees it."""

    def __init__(self, host: str, argv: list[str]) -> None:
        self.host = host
        self.code: int | None = None
        """The code that its tasks ended with, 99 before all others; None as long as it has not said it."""

        self._heard: float | None = None
        self._started = time.monotonic()
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(ALIVE):
                self._heard = time.monotonic()
            elif line.startswith(ENDED):
                self.code = int(line[len(ENDED) :])

    @property
    def running(self) -> bool:
        # What it said last may still be on its way when the process is gone.
        return self._process.poll() is None or self._reader.is_alive()

    @property
    def started(self) -> bool:
        return self._heard is not None

    @property
    def lost(self) -> bool:
        """Whether it started, and cannot be heard any more although it has not said how it ended."""
        if self.code is not None or self._heard is None:
            return False
        return not self.running or time.monotonic() > self._heard + LOST_SECONDS

    def excuse(self, seconds: float) -> None:
        """Makes up for a time in which this process itself could not listen."""
        self._started += seconds
        if self._heard is not None:
            self._heard += seconds

    @property
    def failed_to_start(self) -> bool:
        if self.started or self.code is not None:
            return False
        return not self.running or time.monotonic() > self._started + START_SECONDS

    def send(self, number: int) -> None:
        """Hands a signal on to its tasks."""
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(bytes([number]))
            self._process.stdin.flush()

    def end(self) -> None:
        """Ends its tasks: they see their lifeline's end."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, until: float) -> None:
        """Waits for its end, and kills what is left here at `until` (monotonic seconds)."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def run(hosts: list[str], node_argv: list[str], *, rerun: bool) -> int:
    """Runs `node_argv --node I` on every host; returns the code that the job ends with.

    As srun does, it lets the other tasks go on when one fails; but a task that asks for a requeue ends all, and so does
    a lost host, which asks for one if `rerun` is set.
    """
    nodes: list[Node] = []
    # The other hosts watch their connections here; the kernel answers for as long as this host is well.
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    server = socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=len(hosts))

    def hand_on(number: int, _frame: FrameType | None) -> None:
        for node in nodes:
            node.send(number)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
    try:
        for index, host in enumerate(hosts):
            elsewhere = [*node_argv, "--node", str(index), "--watch", f"{hosts[0]}:{server.getsockname()[1]}"]
            nodes.append(Node(host, _on_host(host, elsewhere) if index else node_argv))
        listened = time.monotonic()
        while any(node.running for node in nodes):
            now = time.monotonic()
            if now > listened + BEAT_SECONDS:  # the job was suspended
                for node in nodes:
                    node.excuse(now - listened)
            listened = now
            for node in nodes:
                if node.failed_to_start:
                    return _say(f"nothing starts on {node.host}: try `qrsh -inherit {node.host} hostname` in a job", 1)
                if node.lost:
                    return _say(f"{node.host} is lost", REQUEUE if rerun and node is not nodes[0] else 1)
                if node.code == REQUEUE:
                    return REQUEUE
            time.sleep(0.1)
        codes = [1 if node.code is None else node.code for node in nodes]
        return REQUEUE if REQUEUE in codes else max(codes)
    finally:
        for node in nodes:
            node.end()
        until = time.monotonic() + END_SECONDS
        for node in nodes:
            node.wait(until)
        server.close()


def _on_host(host: str, argv: list[str]) -> list[str]:
    # The arguments are joined and read by a shell over there. Without -nostdin: it is the lifeline.
    return ["qrsh", "-inherit", "-V", host, f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(argv)}"]


def _say(what: str, code: int) -> int:
    print(f"job of several tasks: {what}", file=sys.stderr, flush=True)
    return code


def _forget_results(ranks: int) -> None:
    """Removes what this attempt's tasks left: they will run again, and nobody shall take it for the outcome."""
    for rank in range(ranks):
        os.environ["SUBMITIT_SGE_GLOBAL_RANK"] = str(rank)
        SgeJobEnvironment().paths.result_pickle.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Start the tasks of a job on all its hosts.")
    parser.add_argument("folder", help="submitit's folder of the job")
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--tasks-per-node", type=int, required=True)
    parser.add_argument("--stderr-to-stdout", action="store_true")
    parser.add_argument("--no-rerun", action="store_true", help="do not ask for a requeue when a node is lost")
    parser.add_argument("command", help="a line of bash that runs one task")
    options = parser.parse_args()
    try:
        hosts = list(granted_hosts())
    except ValueError as error:
        return _say(str(error), 1)
    if len(hosts) < options.nodes:
        return _say(
            f"Grid Engine granted {len(hosts)} host(s) where {options.nodes} nodes were asked for: "
            "choose a parallel environment whose allocation_rule is the slots of one node",
            1,
        )
    hosts = hosts[: options.nodes]
    os.environ.update(
        SUBMITIT_FOLDER=options.folder,
        SUBMITIT_SGE_HOSTS=",".join(hosts),
        SUBMITIT_SGE_NUM_NODES=str(options.nodes),
        SUBMITIT_SGE_NUM_TASKS=str(options.nodes * options.tasks_per_node),
    )
    node_argv = [sys.executable, "-u", "-m", f"{__package__}.node", "--tasks", str(options.tasks_per_node)]
    node_argv += ["--stderr-to-stdout"] if options.stderr_to_stdout else []
    code = run(hosts, [*node_argv, f"--command={options.command}"], rerun=not options.no_rerun)
    if code == REQUEUE:
        _forget_results(options.nodes * options.tasks_per_node)
        if options.nodes > 1 and (because := put_back()):
            return _say(f"left to exit code {REQUEUE}, which may not use the same hosts again: {because}", REQUEUE)
    return code


if __name__ == "__main__":
    sys.exit(main())
