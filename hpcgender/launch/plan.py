"""What runs where: hosts, processes, threads, GPUs and environment of each node, from what was granted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.work import Work
from jobs import machine
from jobs.scheduler import Allocation, Host
from jobs.schedulers import find_allocation
from jobs.site import Site
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where: `allocation` holds the hosts in use, a machine once for each of its local nodes."""

    allocation: Allocation
    procs_per_node: int
    gpus_per_node: int
    threads: str
    """OMP_NUM_THREADS of the ranks on the first host."""

    title: str
    ranks: tuple[str, ...]
    """What every rank runs: the arguments of its Python."""

    rank_log: str
    environ: tuple[dict[str, str], ...]
    """What is added to the environment on each host."""

    python: tuple[str, ...]
    """The command that starts Python on the hosts."""

    alone: bool = False
    """Whether one process does it all, and there is nobody to meet."""


def make_plan(config: LaunchConfig, work: Work, site: Site, environ: Mapping[str, str]) -> Plan:
    """Chooses hosts, processes and threads. Raises UserError if more nodes are asked for than were granted."""
    allocation = find_allocation(environ)
    hosts = chosen_hosts(allocation, config.nodes if work.distributed else 1)
    variable = allocation.scheduler.gpu_variable(site)
    granted = {machine.GPU_VARIABLE: variable} if variable else {}
    gpus = machine.visible_gpus({**environ, **granted})
    shares = 1 if allocation.scheduler.has_queue else len(hosts)
    per_node = len(gpus) // shares if config.gpus_per_node is None else min(config.gpus_per_node, len(gpus) // shares)
    procs = config.procs_per_node or max(1, per_node) if work.distributed else 1
    extra: list[dict[str, str]] = []
    for index, host in enumerate(hosts):
        threads = {} if environ.get("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": str(max(1, host.cpus // procs))}
        extra.append(threads | granted)
        if 1 < shares <= shares * procs <= len(gpus):  # two local nodes must not both take the first GPU
            extra[-1]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * procs : (index + 1) * procs])
        if site.scratch:
            extra[-1]["TMPDIR"] = os.path.expandvars(site.scratch)
    return Plan(
        allocation=Allocation(scheduler=allocation.scheduler, job_id=allocation.job_id, hosts=hosts),
        procs_per_node=procs,
        gpus_per_node=per_node,
        threads=environ.get("OMP_NUM_THREADS") or extra[0]["OMP_NUM_THREADS"],
        title=work.title,
        ranks=("-m", work.module, *work.command),
        rank_log=work.rank_log,
        environ=tuple(extra),
        python=site.agent_python,
        alone=not work.distributed,
    )


def chosen_hosts(allocation: Allocation, wanted: int | None) -> tuple[Host, ...]:
    """The first `wanted` granted hosts; on this machine, it as often as wanted, its cores shared among them."""
    if not allocation.scheduler.has_queue:
        (here,) = allocation.hosts
        count = wanted or 1
        return (Host(here.name, max(1, here.cpus // count)),) * count
    granted = len(allocation.hosts)
    if wanted and wanted > granted:
        raise UserError(
            f"--nodes {wanted}, but job {allocation.job_id} was granted {granted} host{'s' * (granted > 1)} "
            f"({', '.join(host.name for host in allocation.hosts)}): ask the scheduler for more, or leave --nodes out"
        )
    return allocation.hosts[: wanted or granted]


def free_ports(allocation: Allocation) -> Iterator[int]:
    """Ports to meet at, tried in turn. One that is taken here is passed over; the first agent finds out elsewhere."""
    ports = machine.candidate_ports(allocation.job_id, machine.ephemeral_range())
    return (port for port in ports if machine.port_is_free(port))


def start_line(plan: Plan, address: str, port: int) -> str:
    """What the log says first."""
    hosts = plan.allocation.hosts
    local = not plan.allocation.scheduler.has_queue
    names = "" if local else f" ({', '.join(host.name for host in hosts)})"
    where = f"launch: {plan.title} on {_count(len(hosts), 'local node' if local else 'node')}{names}"
    if plan.alone:
        return where
    processes, threads = _count(plan.procs_per_node, "process"), _count(plan.threads, "thread")
    return f"{where}, {processes} each, {threads} each, rendezvous {address}:{port}"


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" + ("" if str(number) == "1" else "es" if noun.endswith("s") else "s")
