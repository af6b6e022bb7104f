"""Runs a plan: one agent on each node, until all have ended."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

from hpcgender.launch.plan import Plan, free_ports, start_line
from jobs import nodes
from jobs.agent import PORT_TAKEN
from jobs.hosts.supervisor import End, Listener
from jobs.nodes import Outcome
from jobs.stopping import StopRequests
from shard_tools.base.contracts import STARTED
from shard_tools.base.errors import FAILED, UserError


def run_plan(plan: Plan, requests: StopRequests) -> Outcome:
    """Runs the plan, on another port as long as one is taken, and returns how it ended."""
    address = "127.0.0.1" if len({host.name for host in plan.allocation.hosts}) == 1 else plan.allocation.hosts[0].name
    port = 0
    for port in free_ports(plan.allocation):
        print(start_line(plan, address, port), file=sys.stderr, flush=True)
        outcome = run_agents(plan, address, port, requests)
        if outcome.code != PORT_TAKEN or requests.reason:
            return outcome
        print(f"launch: port {port} on {address} is taken: trying another", file=sys.stderr, flush=True)
    print(f"launch: found no free port for the rendezvous on {address}, last {port}", file=sys.stderr)
    return Outcome(ends=(End(host=address, code=FAILED, torn_down=True),), stopped_by=None)


def run_agents(plan: Plan, address: str, port: int, requests: StopRequests) -> Outcome:
    """Runs one agent per host, reports what its ranks could not, and returns how the agents ended."""
    directory = str(Path.cwd())
    started = str(time.time())
    scheduler = plan.allocation.scheduler
    watched = not scheduler.notices_lost_hosts and len(plan.allocation.hosts) > 1
    with Listener(address) if watched else nullcontext() as listener:
        agents = []
        for index, host in enumerate(plan.allocation.hosts):
            command = nodes.agent_command(
                nodes=len(plan.allocation.hosts),
                node_rank=index,
                procs_per_node=plan.procs_per_node,
                address=address,
                port=port,
                job_id=plan.allocation.job_id,
                rank_log=plan.rank_log,
                alone=plan.alone,
                supervisor=listener.address(index) if listener else "",
                python=plan.python,
            )
            environ = {**plan.environ[index], STARTED: started}  # --stop-after counts from it
            agents.append(scheduler.node_on(host, index, (*command, *plan.ranks), directory, environ))
        try:
            outcome = nodes.run_nodes(agents, directory, requests, listener)
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is not there, although this is a job of its scheduler: mend PATH"
            ) from error
    if outcome.stopped_by:
        print(f"launch: asked to stop by {outcome.stopped_by}", file=sys.stderr)
    elif end := outcome.lost:
        print(f"launch: everything on {end.host} was killed, or the node is lost", file=sys.stderr)
    elif end := outcome.silent:
        how = f"was killed by signal {-end.code}" if end.code < 0 else f"ended with exit code {end.code}"
        hint = scheduler.try_on_host(end.host)
        print(f"launch: the agent on {end.host} {how} without a word: try `{hint}` in the job", file=sys.stderr)
    return outcome
