"""One host's part of a job of several tasks: starts the tasks of this host, each with a log of its own.

Its exit code is 0, 99, REPORTED if a task failed, which is reported in one line, or FIRST_LOST. Its tasks are ended as
described in `hosts.processes`: when the lifeline ends, or the first host is lost. In the latter case the job starts
again, but not if a part of it has failed before Grid Engine noticed, as qrsh's does after a minute; so this ends well
before that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from ..hosts import processes
from ..hosts.supervisor import FIRST_LOST, REPORTED
from .environment import SgeJobEnvironment
from .qstat import REQUEUE

_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.1


class Task:
    """A running task, leader of a session of its own; its log is appended to."""

    def __init__(self, command: str, *, rank: int, node: int, local_rank: int, stderr_to_stdout: bool) -> None:
        self.rank = rank
        os.environ.update(
            SUBMITIT_SGE_NODE=str(node), SUBMITIT_SGE_LOCAL_RANK=str(local_rank), SUBMITIT_SGE_GLOBAL_RANK=str(rank)
        )
        paths = SgeJobEnvironment().paths
        with paths.stdout.open("ab") as out, contextlib.ExitStack() as stack:
            err = subprocess.STDOUT if stderr_to_stdout else stack.enter_context(paths.stderr.open("ab"))
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # Grid Engine kills by process group, and this leads one of its own. There are no threads here yet.
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509
            )


def run(tasks: Sequence[Task], line: processes.Lifeline) -> int:
    """Waits for all tasks, or until one asks for a requeue or the lifeline ends; returns 99, REPORTED or 0."""
    ended: dict[int, int] = {}
    try:
        while len(ended) < len(tasks) and REQUEUE not in ended.values():
            numbers = line.read(_POLL_SECONDS)
            if numbers is None:
                break
            for task in tasks:
                for number in numbers:
                    task.process.send_signal(number)
                code = task.process.poll()
                if code is not None and task.rank not in ended:
                    ended[task.rank] = code
                    if code not in (0, REQUEUE):
                        how = processes.exit_words(code)
                        print(f"task {task.rank} on {socket.gethostname()} failed: {how}", file=sys.stderr)
    finally:
        processes.end([task.process.pid for task in tasks], _GRACE_SECONDS)
        codes = [task.process.wait() for task in tasks]
    return REQUEUE if REQUEUE in codes else REPORTED if any(codes) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Start the tasks of one host.")
    parser.add_argument("--lifeline", required=True, help="index of this node and address of the first: NODE@HOST:PORT")
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--stderr-to-stdout", action="store_true")
    parser.add_argument("--command", required=True)
    options = parser.parse_args()
    # The job's signals come through the lifeline. They may be sent to this process, too, and HUP when the first host is
    # lost. Not ignored: the tasks would inherit that.
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    node = int(options.lifeline.partition("@")[0])
    tasks = [
        Task(
            options.command,
            rank=node * options.tasks + local_rank,
            node=node,
            local_rank=local_rank,
            stderr_to_stdout=options.stderr_to_stdout,
        )
        for local_rank in range(options.tasks)
    ]
    line = processes.Lifeline(stdin=True, supervisor=options.lifeline)
    code = run(tasks, line)
    return FIRST_LOST if line.lost.is_set() else code


if __name__ == "__main__":
    sys.exit(main())
