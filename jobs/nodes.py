"""Starting, watching and ending one agent per node: through srun, through qrsh, or right here.

Every agent's standard input is a pipe whose other end only this launcher holds. A byte through it asks the ranks to
stop in good order; its end, also if this process is killed, makes the agent end its ranks. Both srun and qrsh carry it
to the other host. Signals they do not carry alike: srun turns TERM into a kill, and qrsh leaves its task at any signal.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs import processes
from jobs.allocation import Allocation
from jobs.failures import KILLED, PORT_TAKEN, SAID
from jobs.heartbeat import Listener
from jobs.stopping import StopRequests
from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE

JOIN_SECONDS = 300
"""How long the nodes wait for each other at the start; a cold Python environment on network storage takes a minute."""

STOP_SECONDS = 120.0
"""How long ranks that were asked to stop have to save their work."""

END_SECONDS = 15.0
"""How long agents have to end their ranks and themselves, before they are killed."""

_POLL_SECONDS = 0.05
_OVER_QRSH = {0: KILLED, 95: 0, 94: REQUEUE}
_TOLD = f"code=$?; [ $code -lt 128 ] || code={KILLED}; case $code in 0) code=95;; {REQUEUE}) code=94;; esac; exit $code"
"""Exit codes are others on their way from Grid Engine's other hosts: it deletes a job whose task dies of a signal, and
takes 99 for itself; and qrsh's own 0 may mean that a host is lost."""

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, KILLED)  # here; elsewhere, by srun; by qrsh


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node's part: its host, how its agent is started, and what is added to the environment there."""

    host: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def by_qrsh(self) -> bool:
        """Whether its exit code is one of those on their way."""
        return self.argv[0] == "qrsh"


@dataclass(frozen=True, kw_only=True)
class End:
    """How a node's agent ended: its exit code, or minus the signal.

    `torn_down` if the launcher was ending all agents already, `forced` if it was killing them, `unreachable` if it did
    so because the host does not answer any more.
    """

    host: str
    code: int
    torn_down: bool
    forced: bool = False
    unreachable: bool = False
    deletes_job: bool = False
    """Whether Grid Engine deletes the job for it: what it had started there died of a signal."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How all agents ended, in that order, and why they were asked to stop, if they were."""

    ends: tuple[End, ...]
    stopped_by: str | None

    @property
    def code(self) -> int:
        """One exit code for all nodes.

        2 tells more than the 1 of those who lost a peer. 99 does so only if stopping was the first that happened: ranks
        of a node that is torn down may answer so, too.
        """
        codes = {end.code for end in self.ends if end.code != REQUEUE or self.stopped_by or not end.torn_down}
        for code in (PORT_TAKEN, BAD_INPUT, REQUEUE):
            if code in codes:
                return code
        return FAILED if codes - {0} else 0

    @property
    def silent(self) -> End | None:
        """The first agent that failed by itself without having said why: it was killed, or could not be started."""
        said = (0, BAD_INPUT, REQUEUE, PORT_TAKEN, SAID)
        return next((end for end in self.ends if end.code not in said and not end.torn_down), None)

    @property
    def lost(self) -> End | None:
        """The first agent that was killed, and not by its launcher: the node died, or all that ran on it."""
        killed = (end for end in self.ends if end.unreachable or (end.code in _KILLED and not end.forced))
        return next(killed, None)


def agent_command(
    *,
    nodes: int,
    node_rank: int,
    procs_per_node: int,
    address: str,
    port: int,
    job_id: str,
    rank_log: str = "",
    heartbeat: str = "",
    alone: bool = False,
    python: Sequence[str] = (sys.executable,),
) -> tuple[str, ...]:
    """The command line of one node's agent, without the `-m MODULE ARGUMENTS` that its ranks run.

    The rendezvous is torchrun's static one: the hosts, their order and the port are known, so that rank 0 is on the
    first host and one port does for everything, where c10d would hand out ranks as agents happen to arrive. `python` is
    the command that starts Python on the nodes. With `alone` one process runs what ranks would, without torchrun.
    """
    if alone:
        return (*python, "-m", "jobs.agent", "--lifeline", "--alone")
    return (
        *(*python, "-m", "jobs.agent", f"--lifeline={node_rank}@{heartbeat}" if heartbeat else "--lifeline"),
        *((f"--rank-log={rank_log}",) if rank_log else ()),
        f"--nnodes={nodes}",
        f"--node-rank={node_rank}",
        f"--nproc-per-node={procs_per_node}",
        f"--master-addr={address}",
        f"--master-port={port}",
        f"--rdzv-id={job_id}",
        f"--rdzv-conf=timeout={JOIN_SECONDS}",
        "--max-restarts=0",
        "--monitor-interval=0.05",
    )


def carried(allocation: Allocation, index: int, command: Sequence[str], directory: str) -> tuple[str, ...]:
    """The command that runs `command` in `directory` on the allocation's host `index`."""
    host = allocation.hosts[index]
    if allocation.scheduler == "slurm":
        return (
            "srun",
            "-QQ",  # its own words about a task's exit code; the agent has said more
            *("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", f"--nodelist={host.name}"),
            f"--cpus-per-task={host.cpus}",  # not inherited from sbatch since Slurm 22.05
            *("--overlap", "--export=ALL", "--mpi=none", f"--chdir={directory}"),
            *command,
        )
    if allocation.scheduler == "sge" and index > 0:
        # The arguments are joined and read by a shell over there. Without -nostdin: it is the lifeline.
        said = f"cd {shlex.quote(directory)} && {shlex.join(command)}; {_TOLD}"
        return ("qrsh", "-inherit", "-V", host.name, said)
    return tuple(command)


def start_by_hand(allocation: Allocation, host: str) -> str:
    """A command with which a person can see why nothing starts on a host."""
    if allocation.scheduler == "slurm":
        return f"srun --overlap --nodes=1 --ntasks=1 --nodelist={host} hostname"
    if allocation.scheduler == "sge":
        return f"qrsh -inherit -V {host} hostname"
    return f"{sys.executable} -m jobs.agent -h"


def run_nodes(
    nodes: Sequence[Node], directory: str, requests: StopRequests, listener: Listener | None = None
) -> Outcome:
    """Starts all agents, waits for them, and returns how they ended; nothing of them is left running.

    The first agent to fail ends the others. `requests`, which is entered, ask all ranks to stop; an impatient one ends
    them at once. Agents that `listener` calls lost are given up. Raises FileNotFoundError if srun or qrsh is not there.
    """
    processes.adopt_orphans(True)
    agents = _Agents(nodes, directory, requests, listener)
    try:
        agents.start()
        return agents.wait()
    finally:
        agents.kill()
        processes.adopt_orphans(False)


class _Agents:
    """The running agents, and what was asked of them."""

    def __init__(
        self, nodes: Sequence[Node], directory: str, requests: StopRequests, listener: Listener | None
    ) -> None:
        self._nodes = nodes
        self._directory = directory
        self._requests = requests
        self._listener = listener
        self._unreachable: set[int] = set()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._stop_at: float | None = None
        self._ended_at: float | None = None
        self._forced = 0

    def start(self) -> None:
        for rank, node in enumerate(self._nodes):
            self._running[rank] = subprocess.Popen(
                node.argv,
                stdin=subprocess.PIPE,
                cwd=self._directory,
                env={**os.environ, **node.environ},
                start_new_session=True,  # a terminal's Ctrl-C comes here only
            )

    def wait(self) -> Outcome:
        ends: list[End] = []
        while self._running:
            for rank, agent in list(self._running.items()):
                code = agent.poll()
                if code is not None:
                    told, by_qrsh = code, self._nodes[rank].by_qrsh
                    if by_qrsh:
                        if told == 0:
                            self._unreachable.add(rank)
                        code = _OVER_QRSH.get(told, told)
                    del self._running[rank]
                    self._close(agent)
                    self._end_orphans()
                    ends.append(
                        End(
                            host=self._nodes[rank].host,
                            code=code,
                            torn_down=self._ended_at is not None,
                            forced=self._forced > 0,
                            unreachable=rank in self._unreachable,
                            deletes_job=by_qrsh and told > 128,
                        )
                    )
            if any(end.code for end in ends):
                self._end()
            self._give_up_lost()
            self._obey()
            time.sleep(_POLL_SECONDS)
        stopped_by = self._requests.reason
        if ends and ends[0].code == REQUEUE:
            stopped_by = stopped_by or self._requests.reason_of_ranks
        return Outcome(ends=tuple(ends), stopped_by=stopped_by)

    def _give_up_lost(self) -> None:
        for rank in self._listener.lost() if self._listener else ():
            if rank in self._running and rank not in self._unreachable:
                self._unreachable.add(rank)
                processes.signal_group(self._running[rank].pid, signal.SIGKILL)

    def _obey(self) -> None:
        now = time.monotonic()
        if self._requests.reason and self._stop_at is None:
            self._stop_at = now
            for agent in self._running.values():
                self._write(agent)
        if self._stop_at is not None and (self._requests.impatient or now > self._stop_at + STOP_SECONDS):
            self._end()
        # srun and qrsh clean up behind themselves at TERM; what is past that is killed.
        for place, (number, seconds) in enumerate(((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS + 5))):
            if self._ended_at is not None and now > self._ended_at + seconds and self._forced == place:
                self._forced += 1
                for agent in self._running.values():
                    processes.signal_group(agent.pid, number)

    def _end(self) -> None:
        if self._ended_at is None:
            self._ended_at = time.monotonic()
            for agent in self._running.values():
                self._close(agent)

    def kill(self) -> None:
        """Leaves nothing behind, whatever happened; agents elsewhere end by their lifeline."""
        for agent in self._running.values():
            self._close(agent)
            processes.signal_group(agent.pid, signal.SIGKILL)
            agent.wait()
        self._running.clear()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Ends ranks whose agent was killed: they became this process's children."""
        known = {agent.pid for agent in self._running.values()}
        for pid in processes.children():
            if pid not in known and processes.leads_session(pid):
                processes.signal_group(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    @staticmethod
    def _write(agent: subprocess.Popen[bytes]) -> None:
        if agent.stdin:
            with contextlib.suppress(BrokenPipeError, ValueError):
                agent.stdin.write(b"s")
                agent.stdin.flush()

    @staticmethod
    def _close(agent: subprocess.Popen[bytes]) -> None:
        if agent.stdin:
            with contextlib.suppress(BrokenPipeError):
                agent.stdin.close()
