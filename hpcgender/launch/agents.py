"""One agent on each node: how many processes, threads and GPUs each gets, and running them until all have ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import LaunchConfig
from hpcgender.log_lines import LAUNCH, STOP_REQUESTED, AttemptLine
from jobs import machine, nodes
from jobs.agent import PORT_TAKEN
from jobs.hosts.processes import exit_words
from jobs.hosts.supervisor import End, Listener
from jobs.nodes import Outcome
from jobs.scheduler import Allocation, Host
from jobs.site import Site
from jobs.stopping import StopRequests
from shard_tools.base.commands import Call
from shard_tools.base.contracts import DEVICE, STARTED
from shard_tools.base.errors import FAILED, UserError
from shard_tools.base.text import plural


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What runs where: `allocation` holds the hosts in use, this machine once for each of its local nodes."""

    allocation: Allocation
    procs_per_node: int
    gpus_per_node: int
    threads: str
    """OMP_NUM_THREADS of the ranks on the first host."""
    command: str
    """Name of the command."""
    ranks: tuple[str, ...]
    """What every rank runs: the arguments of its Python."""
    rank_log: str
    """Log of the ranks above 0, with {rank} in it; empty if there are none."""
    environ: tuple[dict[str, str], ...]
    """What is added to the environment on each host."""
    python: tuple[str, ...]
    """The command that starts Python on the hosts."""
    alone: bool = False
    """Whether one process does all of the work, without a process group."""


def make_layout(
    config: LaunchConfig, call: Call[Any], site: Site, granted: Allocation, environ: Mapping[str, str]
) -> Layout:
    """Chooses hosts, processes and threads. Raises UserError if more nodes or GPUs are asked for than there are."""
    check_shared(config, call)
    distributed, scheduler = call.command.distributed, granted.scheduler
    hosts = chosen_hosts(granted, config.nodes if distributed else 1, config.cpus)
    variable = scheduler.gpu_variable(site)
    added = {machine.GPU_VARIABLE: variable} if variable else {}
    gpus = machine.visible_gpus({**environ, **added})
    shares = 1 if scheduler.has_queue else len(hosts)
    per_node = len(gpus) // shares
    if config.gpus_per_node is not None:
        check_gpus(config.gpus_per_node, len(gpus), granted, shares)
        per_node = config.gpus_per_node
    procs = config.procs_per_node or max(1, per_node) if distributed else 1
    on_gpus = bool(gpus) and config.gpus_per_node != 0 and environ.get(DEVICE) != "cpu"
    if distributed and on_gpus:
        check_processes(procs, len(gpus), granted, shares)
    extra: list[dict[str, str]] = []
    for index, host in enumerate(hosts):
        threads = {} if environ.get("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": str(max(1, host.cpus // procs))}
        extra.append(threads | added)
        if gpus and config.gpus_per_node == 0:
            extra[-1]["CUDA_VISIBLE_DEVICES"] = ""
        elif 1 < shares <= shares * procs <= len(gpus):  # two local nodes must not both take the first GPU
            extra[-1]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * procs : (index + 1) * procs])
        if distributed and on_gpus and DEVICE not in environ:
            extra[-1][DEVICE] = "cuda"  # on all hosts, also on one where no GPU is seen
        if site.scratch:
            extra[-1]["TMPDIR"] = os.path.expandvars(site.scratch)
    return Layout(
        allocation=replace(granted, hosts=hosts),
        procs_per_node=procs,
        gpus_per_node=per_node,
        threads=environ.get("OMP_NUM_THREADS") or extra[0]["OMP_NUM_THREADS"],
        command=call.command.name,
        ranks=("-m", call.module, *call.words),
        rank_log=str(call.results / "logs" / "rank-{rank}.log") if distributed else "",
        environ=tuple(extra),
        python=site.agent_python,
        alone=not distributed,
    )


def check_shared(config: LaunchConfig, call: Call[Any]) -> None:
    """Raises UserError if several nodes or processes are asked for, for a command whose work they do not share."""
    for name in ("nodes", "procs_per_node"):
        value = getattr(config, name)
        if not call.command.distributed and (value or 1) > 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: {call.command.name} is one process on one node")


def check_gpus(wanted: int, there: int, granted: Allocation, shares: int) -> None:
    """Raises UserError unless `wanted` GPUs per node are among those that are there for `shares` nodes."""
    if wanted * shares <= there:
        return
    here = granted.hosts[0].name
    where = (
        f"job {granted.job_id} was granted {there} on {here}" if granted.scheduler.has_queue else f"{here} has {there}"
    )
    nodes = f" for {shares} nodes" if shares > 1 else ""
    raise UserError(
        f"--gpus-per-node {wanted}{nodes}, but {where}: ask for fewer, 0 for none, or see CUDA_VISIBLE_DEVICES"
    )


def check_processes(procs: int, there: int, granted: Allocation, shares: int) -> None:
    """Raises UserError unless each of `procs` processes on each of `shares` nodes has a GPU of its own."""
    if procs * shares <= there:
        return
    where = f"{granted.hosts[0].name} has {plural(there, 'GPU')}"
    raise UserError(
        f"{plural(procs * shares, 'process', 'processes')}, but {where}, and each needs its own: give fewer --nodes or "
        "--procs-per-node, or --gpus-per-node 0 to compute on the CPU"
    )


def chosen_hosts(granted: Allocation, wanted: int | None, cpus: int | None = None) -> tuple[Host, ...]:
    """The first `wanted` granted hosts; without a scheduler this one as often as wanted, its cores shared equally.

    At most `cpus` cores are used of each, if given.
    """
    if not granted.scheduler.has_queue:
        (here,) = granted.hosts
        count = wanted or 1
        share = max(1, here.cpus // count)
        return (Host(here.name, min(share, cpus or share)),) * count
    count = len(granted.hosts)
    if wanted and wanted > count:
        raise UserError(
            f"--nodes {wanted}, but job {granted.job_id} was granted {plural(count, 'host')} "
            f"({', '.join(host.name for host in granted.hosts)}): ask the scheduler for more, or leave --nodes out"
        )
    return tuple(Host(host.name, min(host.cpus, cpus or host.cpus)) for host in granted.hosts[: wanted or count])


def free_ports(allocation: Allocation) -> Iterator[int]:
    """Ports for the rendezvous, to be tried in turn, without those in use here; the first agent finds the others."""
    ports = machine.candidate_ports(allocation.job_id, machine.ephemeral_range())
    return (port for port in ports if machine.port_is_free(port))


def attempt_line(layout: Layout, address: str, port: int) -> str:
    """The first line of an attempt in the log."""
    hosts, alone = layout.allocation.hosts, layout.alone
    return AttemptLine(
        command=layout.command,
        nodes=len(hosts),
        hosts=tuple(host.name for host in hosts) if layout.allocation.scheduler.has_queue else (),
        processes=layout.procs_per_node,
        threads=layout.threads,
        rendezvous="" if alone else f"{address}:{port}",
    ).text()


def run_layout(layout: Layout, requests: StopRequests) -> Outcome:
    """Runs the agents, on another port as long as one is in use, and returns how they ended."""
    hosts = layout.allocation.hosts
    address = "127.0.0.1" if len({host.name for host in hosts}) == 1 else hosts[0].name
    port = 0
    for port in free_ports(layout.allocation):
        print(attempt_line(layout, address, port), file=sys.stderr, flush=True)
        outcome = run_agents(layout, address, port, requests)
        if outcome.code != PORT_TAKEN or requests.reason:
            return outcome
        print(f"{LAUNCH}port {port} on {address} is taken: trying another", file=sys.stderr, flush=True)
    print(f"{LAUNCH}found no free port for the rendezvous on {address}, last {port}", file=sys.stderr)
    return Outcome(ends=(End(host=address, code=FAILED, torn_down=True),), stopped_by=None)


def run_agents(layout: Layout, address: str, port: int, requests: StopRequests) -> Outcome:
    """Runs one agent per host, reports what its ranks could not, and returns how the agents ended."""
    directory, started = str(Path.cwd()), str(time.time())
    scheduler, hosts = layout.allocation.scheduler, layout.allocation.hosts
    with Listener(address) if len(set(hosts)) > 1 else nullcontext() as listener:
        agents = []
        for index, host in enumerate(hosts):
            command = nodes.agent_command(
                nodes=len(hosts),
                node_rank=index,
                procs_per_node=layout.procs_per_node,
                address=address,
                port=port,
                job_id=layout.allocation.job_id,
                rank_log=layout.rank_log,
                alone=layout.alone,
                supervisor=listener.address(index) if listener else "",
                python=layout.python,
            )
            environ = {**layout.environ[index], STARTED: started}  # --stop-after counts from it
            agents.append(scheduler.node_on(host, index, (*command, *layout.ranks), directory, environ))
        try:
            outcome = nodes.run_nodes(agents, directory, requests, listener)
        except FileNotFoundError as error:
            raise UserError(f"there is no {error.filename} on this host: add its directory to PATH") from error
    if (lost := outcome.lost) and lost.unreachable:  # also if it was noticed elsewhere, and a stop asked for
        print(f"{LAUNCH}{lost.host} was lost", file=sys.stderr)
    if outcome.stopped_by:
        print(f"{STOP_REQUESTED}{outcome.stopped_by}", file=sys.stderr)
    elif lost and not lost.unreachable:
        print(f"{LAUNCH}everything on {lost.host} was killed", file=sys.stderr)
    elif not lost and (end := outcome.silent):
        how, hint = exit_words(end.code), scheduler.try_on_host(end.host)
        print(
            f"{LAUNCH}the agent on {end.host} ended without a message ({how}): try `{hint}` in the job", file=sys.stderr
        )
    return outcome
