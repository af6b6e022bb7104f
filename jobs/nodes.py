"""The launcher's agents: one per host, started, asked to stop, and what their exit codes mean together."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.agent import PORT_TAKEN
from jobs.hosts.supervisor import REPORTED, End, Listener, Node, Supervisor
from jobs.stopping import StopRequests
from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE

JOIN_SECONDS = 300
"""How long the nodes wait for each other at the start; a cold Python environment on network storage takes a minute."""

STOP_SECONDS = 120.0
"""How long ranks that were asked to stop have to save their work."""


_UNHEARD = frozenset(code for number in (signal.SIGUSR1, signal.SIGUSR2) for code in (-number, 128 + number))
"""Exit codes of an agent that a request to stop, which Slurm sends to all processes, met before it could hear it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How all agents ended, in that order, and why they were asked to stop, if they were."""

    ends: tuple[End, ...]
    stopped_by: str | None

    @property
    def code(self) -> int:
        """One exit code for all nodes.

        2 goes before the 1 of nodes that lost a peer. 99 counts only if the stop came first: ranks of a node that is
        torn down may end with it, too.
        """
        codes = {end.code for end in self.ends if end.code != REQUEUE or self.stopped_by or not end.torn_down}
        for code in (PORT_TAKEN, BAD_INPUT, REQUEUE):
            if code in codes:
                return code
        return FAILED if codes - {0} else 0

    @property
    def silent(self) -> End | None:
        """The first agent that failed by itself without a message: it was killed, or could not be started."""
        reported = (0, BAD_INPUT, REQUEUE, PORT_TAKEN, REPORTED)
        return next((end for end in self.ends if end.code not in reported and not end.torn_down), None)

    @property
    def lost(self) -> End | None:
        """The first agent whose host is lost, or which was killed, and not by the launcher."""
        return next((end for end in self.ends if end.lost), None)


def agent_command(
    *,
    nodes: int,
    node_rank: int,
    procs_per_node: int,
    address: str,
    port: int,
    job_id: str,
    rank_log: str = "",
    supervisor: str = "",
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
        *(*python, "-m", "jobs.agent", f"--lifeline={supervisor}" if supervisor else "--lifeline"),
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


def run_nodes(
    nodes: Sequence[Node], directory: str, requests: StopRequests, listener: Listener | None = None
) -> Outcome:
    """Starts all agents, waits for them, and returns how they ended; none of their processes is left running.

    The first agent to fail ends the others. `requests`, which is entered, ask all ranks to stop; an impatient one ends
    them immediately. Raises FileNotFoundError if srun or qrsh does not exist.
    """
    asked_at: float | None = None
    with Supervisor(nodes, directory, listener) as hosts:
        while hosts.wait():
            if any(end.code for end in hosts.ends):
                hosts.end()
            if requests.reason and asked_at is None:
                asked_at = hosts.clock
                hosts.send(signal.SIGTERM)
            if asked_at is not None and (requests.impatient or hosts.clock > asked_at + STOP_SECONDS):
                hosts.end()
    stopped_by = requests.reason
    ends = [replace(end, code=REQUEUE) if end.code in _UNHEARD and not end.torn_down else end for end in hosts.ends]
    if ends[0].code == REQUEUE:
        stopped_by = stopped_by or requests.reason_of_ranks
    return Outcome(ends=tuple(ends), stopped_by=stopped_by)
