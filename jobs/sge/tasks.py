"""The first host's part of a job of several tasks: starts `node` on every host, through qrsh on the others, and waits.

The supervisor notices the loss of the others, and the second host that of the first.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..hosts.supervisor import REPORTED, End, Listener, Node, Supervisor
from . import qrsh
from .environment import SgeJobEnvironment
from .hostfile import granted_hosts
from .qstat import REQUEUE
from .requeue import put_back

START_SECONDS = 300.0
"""After how long to mention hosts that have not connected; a cold Python environment on network storage takes a minute.

They are not given up: a firewall may be in the way.
"""


def run(hosts: Sequence[str], node_argv: Sequence[str], *, rerun: bool) -> int:
    """Runs `node_argv` on every host; returns the code that the job ends with.

    As with srun, the other tasks go on when one fails. But a task that asks for a requeue ends all, and so does a lost
    host, which asks for one if `rerun` is set.
    """
    received: list[int] = []  # the job's signals, for its tasks
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: received.append(number))
    directory = str(Path.cwd())
    mentioned = False
    with Listener(hosts[0]) as listener:
        nodes = []
        elsewhere = qrsh.of_this_host(os.environ)
        for index, host in enumerate(hosts):
            argv = [*node_argv, f"--lifeline={listener.address(index)}"]
            nodes.append(
                Node(
                    host=host,
                    argv=qrsh.on_host(host, argv, directory, hosts if index == 1 and rerun else ()),
                    environ=elsewhere,
                    read_exit=qrsh.read_exit,
                )
                if index
                else Node(host=host, argv=argv)
            )
        with Supervisor(nodes, directory, listener) as supervisor:
            while supervisor.wait():
                while received:
                    supervisor.send(received.pop(0))
                if any(verdict(end, hosts[0], rerun) for end in supervisor.ends):
                    supervisor.end()
                if not mentioned and supervisor.clock > START_SECONDS and supervisor.silent:
                    mentioned = True
                    names = ", ".join(supervisor.silent)
                    _report(f"no connection from {names}: nothing has started there, or a firewall is in the way", 0)
    decisive = next((found for end in supervisor.ends if (found := verdict(end, hosts[0], rerun))), None)
    if decisive:
        code, message = decisive
        return _report(message, code) if message else code
    return int(any(end.code for end in supervisor.ends))


def verdict(end: End, first_host: str, rerun: bool) -> tuple[int, str] | None:
    """The job's exit code and a message, if the end of this node is the end of the job; None if the others go on."""
    if end.code == REQUEUE:
        return REQUEUE, ""
    if end.lost:
        return REQUEUE if rerun and end.host != first_host else 1, f"{end.host} is lost"
    if end.code not in (0, REPORTED):
        return 1, f"nothing starts on {end.host}: try `qrsh -inherit {end.host} hostname` in a job"
    return None


def _report(message: str, code: int) -> int:
    print(f"job of several tasks: {message}", file=sys.stderr, flush=True)
    return code


def _forget_results(ranks: int) -> None:
    """Removes the results of this attempt: its tasks will run again, and nobody must take these for the outcome."""
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
        return _report(str(error), 1)
    if len(hosts) < options.nodes:
        return _report(
            f"Grid Engine granted {len(hosts)} of {options.nodes} hosts: "
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
            return _report(f"left to exit code {REQUEUE}, which may not use the same hosts again: {because}", REQUEUE)
    return code


if __name__ == "__main__":
    sys.exit(main())
