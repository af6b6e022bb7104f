"""One node's part of a job of several tasks: starts the tasks of this host, each with a log of its own.

Standard input is the lifeline: each byte is the number of a signal to hand on to the tasks; its end, also if the first
host's part was killed, ends them. Standard output tells the first host that this node lives and how its tasks ended.

Where the first host loses its power, the lifeline does not end. Grid Engine would run the job again, but not if a part
of it failed before it has noticed, as qrsh's does after a minute. So a connection to the first host is watched, too, in
order to end well before that. The kernels keep it alive, also while the job is suspended.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time

from .environment import SgeJobEnvironment
from .qstat import REQUEUE

ALIVE = b"alive"
ENDED = b"ended "
BEAT_SECONDS = 5.0
"""How often a node says that it lives."""

_GRACE_SECONDS = 2.0
_CONNECT_SECONDS = 30.0
_IDLE, _INTERVAL, _PROBES = 10, 5, 4  # seconds, seconds, probes without an answer: half a minute in all
_PR_SET_PDEATHSIG = 1


class Task:
    """A running task, leader of a session of its own; its log is appended to."""

    def __init__(self, command: str, *, node: int, local_rank: int, tasks: int, stderr_to_stdout: bool) -> None:
        rank = node * tasks + local_rank
        environ = {
            "SUBMITIT_SGE_NODE": str(node),
            "SUBMITIT_SGE_LOCAL_RANK": str(local_rank),
            "SUBMITIT_SGE_GLOBAL_RANK": str(rank),
        }
        os.environ.update(environ)
        paths = SgeJobEnvironment().paths
        with paths.stdout.open("ab") as out, contextlib.ExitStack() as stack:
            err = subprocess.STDOUT if stderr_to_stdout else stack.enter_context(paths.stderr.open("ab"))
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # Grid Engine kills by process group, and this leads one of its own. There are no threads here.
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )

    @property
    def code(self) -> int | None:
        """Its exit code as a shell would say it, 128 + the signal if one killed it; None as long as it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        """Signals it and everything it started that did not leave its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def end(self) -> None:
        """Leaves nothing of it running: a last chance first, then none."""
        until = time.monotonic() + _GRACE_SECONDS
        self.signal_group(signal.SIGTERM)
        while self.code is None and time.monotonic() < until:
            time.sleep(0.05)
        self.signal_group(signal.SIGKILL)
        self._process.wait()


def run(tasks: list[Task], lifeline: int, first_host: socket.socket | None = None) -> int:
    """Waits for all tasks, or until one asks for a requeue or the lifeline ends; returns 99, or the greatest code.

    `first_host` is watched, too, if there is a connection.
    """
    watched = [lifeline] if first_host is None else [lifeline, first_host.fileno()]
    beat = float("-inf")
    try:
        while any(task.code is None for task in tasks) and not any(task.code == REQUEUE for task in tasks):
            if time.monotonic() > beat + BEAT_SECONDS:
                beat = time.monotonic()
                _tell(ALIVE)
            ready, _, _ = select.select(watched, [], [], 0.1)
            if lifeline in ready:
                numbers = os.read(lifeline, 64)
                for task in tasks:
                    for number in numbers:
                        task.send(number)
                if not numbers:
                    break
            elif ready:
                break  # nothing is ever sent there: it is lost, or closed
    finally:
        for task in tasks:
            task.end()
    codes = [task.code or 0 for task in tasks]
    return REQUEUE if REQUEUE in codes else max(codes)


def watch(address: str) -> socket.socket | None:
    """A connection to `host:port` that becomes readable when that host is lost; None where there can be none."""
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
    except OSError:
        return None  # a firewall: the lifeline has to do
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    return connection


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def _tell(what: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody listens: the lifeline ends, too
        os.write(sys.stdout.fileno(), what + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Start the tasks of one host.")
    parser.add_argument("--node", type=int, default=0)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--stderr-to-stdout", action="store_true")
    parser.add_argument("--command", required=True)
    parser.add_argument("--watch", default="", help="host:port of the first host, for the others")
    options = parser.parse_args()
    # The lifeline tells what to do. USR1 and USR2 may come here, too, and HUP when the first host is lost: were this
    # process killed by it, Grid Engine would end the job for good. Not ignored: the tasks would inherit that.
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    tasks = [
        Task(
            options.command,
            node=options.node,
            local_rank=local_rank,
            tasks=options.tasks,
            stderr_to_stdout=options.stderr_to_stdout,
        )
        for local_rank in range(options.tasks)
    ]
    code = run(tasks, sys.stdin.fileno(), watch(options.watch) if options.watch else None)
    _tell(ENDED + str(code).encode())
    return 0  # 99 and 100 would mean something to Grid Engine


if __name__ == "__main__":
    sys.exit(main())
