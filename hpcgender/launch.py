"""Runs a command on several nodes: inside a Slurm or Grid Engine job on its hosts, elsewhere on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs import machine, nodes
from jobs.allocation import Allocation, Host, find_allocation
from jobs.failures import FAILED, PORT_TAKEN
from shard_tools.commands import UserError, attribute, parse_options, unknown


@dataclass(kw_only=True)
class LaunchConfig:
    """Run a command on several nodes: the hosts of the Slurm or Grid Engine job around it, or this machine."""

    command: Annotated[tuple[str, ...], tyro.conf.Positional] = ("train",)
    """The command and its options, after `--`."""

    nodes: int | None = None
    """On how many nodes. Default: all that the job was granted, or 1 on this machine."""

    procs_per_node: int | None = None
    """Processes on each node. Default: one for each visible GPU of the first, or 1."""

    def __post_init__(self) -> None:
        for name in ("nodes", "procs_per_node"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where: `allocation` holds the hosts in use, a machine once for each of its local nodes."""

    allocation: Allocation
    procs_per_node: int
    threads: str
    """OMP_NUM_THREADS of the ranks on the first host."""

    title: str
    ranks: tuple[str, ...]
    """What every rank runs: the arguments of its Python."""

    rank_log: str
    environ: tuple[dict[str, str], ...]
    """What is added to the environment on each host."""


def launch(config: LaunchConfig) -> int:
    """Runs the command on the nodes and returns its exit code. Raises UserError for what can be known beforehand."""
    rank_log = check_command(config.command)
    return run_plan(make_plan(config, os.environ, rank_log))


def run_plan(plan: Plan) -> int:
    """Runs the plan, on another port as long as one is taken, and returns the exit code for all nodes."""
    address = "127.0.0.1" if len({host.name for host in plan.allocation.hosts}) == 1 else plan.allocation.hosts[0].name
    port = 0
    for port in free_ports(plan.allocation):
        print(start_line(plan, address, port), file=sys.stderr, flush=True)
        code = run_agents(plan, address, port)
        if code != PORT_TAKEN:
            return code
        print(f"launch: port {port} on {address} is taken: trying another", file=sys.stderr, flush=True)
    print(f"launch: found no free port for the rendezvous on {address}, last {port}", file=sys.stderr)
    return FAILED


def check_command(command: Sequence[str]) -> str:
    """Checks the command and its options as far as that goes without torch; returns where its ranks above 0 log to.

    An options object may have a method `check()` that raises UserError, and a `run_dir` or `out_dir`, below which the
    ranks write `logs/rank-<rank>.log`. Raises UserError, or exits as the command itself would on a wrong option.
    """
    from hpcgender.cli import COMMANDS  # which names this module

    known = {name: entry for name, entry in COMMANDS.items() if name != "launch"}
    if command[0] not in known:
        raise unknown("command", command[0], list(known))
    options = parse_options(attribute(known[command[0]].options), f"hpcgender {command[0]}", command[1:])
    if hasattr(options, "check"):
        options.check()
    directory = getattr(options, "run_dir", None) or getattr(options, "out_dir", None)
    return str(directory / "logs" / "rank-{rank}.log") if directory else ""


def make_plan(config: LaunchConfig, environ: Mapping[str, str], rank_log: str = "") -> Plan:
    """Chooses hosts, processes and threads. Raises UserError if more nodes are asked for than were granted."""
    try:
        allocation = find_allocation(environ)
    except ValueError as error:
        raise UserError(str(error)) from error
    hosts = chosen_hosts(allocation, config.nodes)
    gpus = machine.visible_gpus(environ)
    shares = len(hosts) if allocation.scheduler == "local" else 1
    procs = config.procs_per_node or max(1, len(gpus) // shares)
    extra: list[dict[str, str]] = []
    for index, host in enumerate(hosts):
        extra.append({} if environ.get("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": str(max(1, host.cpus // procs))})
        if 1 < shares <= shares * procs <= len(gpus):  # two local nodes must not both take the first GPU
            extra[-1]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * procs : (index + 1) * procs])
    return Plan(
        allocation=Allocation(scheduler=allocation.scheduler, job_id=allocation.job_id, hosts=hosts),
        procs_per_node=procs,
        threads=environ.get("OMP_NUM_THREADS") or extra[0]["OMP_NUM_THREADS"],
        title=config.command[0],
        ranks=("-m", f"hpcgender.{config.command[0]}", *config.command[1:]),
        rank_log=rank_log,
        environ=tuple(extra),
    )


def chosen_hosts(allocation: Allocation, wanted: int | None) -> tuple[Host, ...]:
    """The first `wanted` granted hosts; on this machine, it as often as wanted, its cores shared among them."""
    if allocation.scheduler == "local":
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
    local = plan.allocation.scheduler == "local"
    names = "" if local else f" ({', '.join(host.name for host in hosts)})"
    return (
        f"launch: {plan.title} on {_count(len(hosts), 'local node' if local else 'node')}{names}, "
        f"{_count(plan.procs_per_node, 'process')} each, {_count(plan.threads, 'thread')} each, "
        f"rendezvous {address}:{port}"
    )


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" + ("" if str(number) == "1" else "es" if noun.endswith("s") else "s")


def run_agents(plan: Plan, address: str, port: int) -> int:
    """Runs one agent per host and returns the exit code for all, or PORT_TAKEN."""
    directory = str(Path.cwd())
    agents = [
        nodes.agent_command(
            nodes=len(plan.allocation.hosts),
            node_rank=index,
            procs_per_node=plan.procs_per_node,
            address=address,
            port=port,
            job_id=plan.allocation.job_id,
            rank_log=plan.rank_log,
        )
        for index in range(len(plan.allocation.hosts))
    ]
    started = time.time()
    try:
        outcome = nodes.run_nodes(
            [
                nodes.Node(
                    host=host.name,
                    argv=nodes.carried(plan.allocation, index, (*agents[index], *plan.ranks), directory),
                    environ={**plan.environ[index], "JOBS_STARTED": str(started)},  # --stop-after counts from it
                )
                for index, host in enumerate(plan.allocation.hosts)
            ],
            directory,
        )
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there, although this is a job of its scheduler: mend PATH") from error
    if outcome.stopped_by:
        print(f"launch: asked to stop by {outcome.stopped_by.name}", file=sys.stderr)
        return FAILED if outcome.code == PORT_TAKEN else outcome.code
    if end := outcome.silent:
        how = f"was killed by signal {-end.code}" if end.code < 0 else f"ended with exit code {end.code}"
        hint = nodes.start_by_hand(plan.allocation, end.host)
        print(f"launch: the agent on {end.host} {how} without a word: try `{hint}` in the job", file=sys.stderr)
    return outcome.code


if __name__ == "__main__":
    from hpcgender.cli import main

    main("launch")
