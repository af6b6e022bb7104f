"""Which hosts a scheduler granted to this job, read from its environment and files."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Scheduler = Literal["slurm", "sge", "local"]


@dataclass(frozen=True)
class Host:
    """A granted machine: the name that the scheduler and the network know it by, and the cores granted on it."""

    name: str
    cpus: int


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What one job was granted. `hosts` begins with the host where the job script runs; for `local` it is this one."""

    scheduler: Scheduler
    job_id: str
    hosts: tuple[Host, ...]


def find_allocation(environ: Mapping[str, str]) -> Allocation:
    """The allocation that this process runs in: Slurm's, Grid Engine's, or this machine where there is no scheduler.

    Raises ValueError, with one line for a person, if the scheduler's variables cannot be read.
    """
    if environ.get("SLURM_JOB_ID"):
        return slurm_allocation(environ)
    if environ.get("PE_HOSTFILE") or (environ.get("JOB_ID") and environ.get("SGE_TASK_ID")):
        return sge_allocation(environ)
    cores = len(os.sched_getaffinity(0))
    return Allocation(scheduler="local", job_id=str(os.getpid()), hosts=(Host(socket.gethostname(), cores),))


def slurm_allocation(environ: Mapping[str, str]) -> Allocation:
    """The hosts of a Slurm job, from SLURM_JOB_NODELIST and SLURM_JOB_CPUS_PER_NODE."""
    nodelist = environ.get("SLURM_JOB_NODELIST", "")
    names = expand_nodelist(nodelist)
    if not names:
        raise ValueError(
            f"SLURM_JOB_ID is set, but SLURM_JOB_NODELIST={nodelist!r} names no host: run inside sbatch or salloc"
        )
    cpus = expand_counts(environ.get("SLURM_JOB_CPUS_PER_NODE", environ.get("SLURM_CPUS_ON_NODE", "1")))
    if len(cpus) < len(names):
        cpus += cpus[-1:] * (len(names) - len(cpus))
    return Allocation(
        scheduler="slurm",
        job_id=environ["SLURM_JOB_ID"],
        hosts=tuple(Host(name, count) for name, count in zip(names, cpus, strict=False)),
    )


def sge_allocation(environ: Mapping[str, str]) -> Allocation:
    """The hosts of a Grid Engine job: those of its parallel environment, or this one alone."""
    from jobs.sge.hostfile import granted_hosts  # with submitit, which nobody else needs here

    task = environ.get("SGE_TASK_ID", "undefined")
    job_id = environ.get("JOB_ID", "0") + ("" if task == "undefined" else f".{task}")
    hosts = tuple(Host(name, slots) for name, slots in granted_hosts(environ).items())
    return Allocation(scheduler="sge", job_id=job_id, hosts=hosts)


def expand_nodelist(nodelist: str) -> list[str]:
    """The host names of Slurm's short form: `node[1-2,07],gpu3` is node1, node2, node07, gpu3."""
    # A comma inside brackets separates ranges, one outside separates hosts.
    return [name for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodelist) for name in _expand_brackets(part)]


def _expand_brackets(part: str) -> list[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, _, tail = rest.partition("]")
    tails = _expand_brackets(tail)
    return [head + number + end for span in ranges.split(",") for number in _expand_range(span) for end in tails]


def _expand_range(span: str) -> list[str]:
    first, dash, last = span.partition("-")
    return [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] if dash else [first]


def expand_counts(counts: str) -> list[int]:
    """The numbers of Slurm's short form: `16(x2),8` is 16, 16, 8."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(count) for count, times in found for _ in range(int(times or 1))]
