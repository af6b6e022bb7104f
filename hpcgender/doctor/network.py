"""Checks of the network: which interface is chosen, ports, whether the ranks meet, and how fast they all-reduce."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from hpcgender.distributed import Ranks, check_interface, interfaces
from hpcgender.doctor.finding import Finding, examined, green, red, yellow
from jobs import machine
from shard_tools.base.text import byte_size, plural

TIMEOUT = timedelta(seconds=120)
"""How long ranks wait for each other: each is busy with its own checks meanwhile."""
PATIENCE = 60.0
"""Seconds that all-reduces may take, with the connections that they open: less than TIMEOUT, in which a rank whose own
have failed at once waits to hear of the others."""
ROUNDS = 3
GPU_BYTES, CPU_BYTES = 1 << 26, 1 << 24
"""Size of what is all-reduced."""
SLOW_SHARE = 0.5
"""Part of a step's time from which on an all-reduce does not hide behind the backward pass."""


def interface(apart: bool, environ: Mapping[str, str], host: str | None = None) -> Finding:
    """Through which interface other nodes reach this host's processes, as gloo chooses it: by the host's name.

    `apart`: whether processes run on other hosts, too.
    """
    check_interface()
    name = host or socket.gethostname()
    fast = sorted(path.name for path in Path("/sys/class/infiniband").glob("*"))
    also = f", InfiniBand: {', '.join(fast)}" if fast else ""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if chosen := environ.get(variable):
            return green("interface", f"{chosen}, by {variable}{also}")
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        address, because = "", error.strerror or str(error)
    else:
        because = address
    others = [f"{there} ({known})" for there, known in interfaces().items() if not known.startswith("127.")]
    if address and not address.startswith("127."):
        names = [there for there, known in interfaces().items() if known == address]
        return green("interface", f"{names[0] if names else 'unknown'} ({address}){also}")
    found = f"the name {name} is {because} here{also}"
    if not apart:
        return green("interface", f"{found}, which will do on one host")
    return red(
        "interface",
        found,
        f"set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface of the other nodes: {', '.join(others)}",
    )


def ports(job_id: str) -> Finding:
    """Whether the ports of a job's rendezvous are free."""
    tried = list(machine.candidate_ports(job_id, machine.ephemeral_range()))
    free = [port for port in tried if machine.port_is_free(port)]
    numbers = ", ".join(map(str, tried))
    if not free:
        return red("ports", f"all in use: {numbers}", "end what listens there: ss -ltnp")
    if len(free) < len(tried) / 2:
        return yellow("ports", f"{len(free)} of {len(tried)} free: {numbers}", "see what listens there: ss -ltnp")
    return green("ports", f"{len(free)} of {len(tried)} free from {tried[0]} on")


def join(ranks: Ranks) -> Finding:
    """Makes the process group of all ranks, on their CPUs, and says how long they took to meet."""
    begin = time.perf_counter()
    dist.init_process_group("gloo", timeout=TIMEOUT)
    dist.barrier()
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    seconds = time.perf_counter() - begin
    return green(
        "rendezvous", f"{plural(ranks.world_size, 'process', 'processes')} met at {where} within {seconds:.1f} s"
    )


def clocks(ranks: Ranks, host: str, rounds: int = 5) -> dict[str, float]:
    """Seconds by which each host's clock is ahead of rank 0's, on rank 0; their smallest of some rounds."""
    times = []
    for _ in range(rounds):
        dist.barrier()
        times.append(time.time())
    gathered = ranks.gather((host, times))
    offsets: dict[str, float] = {}
    for where, theirs in gathered:
        differences = [there - here for there, here in zip(theirs, gathered[0][1], strict=True)]
        offsets.setdefault(where, min(differences, key=abs))
    return offsets


def all_reduce(ranks: Ranks, members: list[int], group: Any) -> float:
    """Bytes per second at which these ranks sum up a tensor of each; RuntimeError if the sum is wrong."""
    cuda = ranks.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(ranks.device)  # each thread has its own
    count = (GPU_BYTES if cuda else CPU_BYTES) // 4
    seconds = []
    for _ in range(ROUNDS + 1):  # the first one opens connections
        values = torch.full((count,), float(ranks.rank + 1), device=ranks.device)
        synchronize(ranks.device)
        dist.barrier(group)
        begin = time.perf_counter()
        dist.all_reduce(values, group=group)
        synchronize(ranks.device)
        seconds.append(time.perf_counter() - begin)
        if not bool((values == sum(rank + 1 for rank in members)).all()):
            raise RuntimeError(f"the sum over ranks {members} is wrong")
    return 4 * count / min(seconds[1:])


def synchronize(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidths(ranks: Ranks) -> dict[str, float]:
    """Bytes per second of all-reduces `within a node` and `across nodes`, as far as there are several to sum over."""
    size, backend = ranks.local_world_size, "nccl" if ranks.device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=10 * PATIENCE)  # of NCCL's watchdog, which ends the process: `within` is sooner
    found = {}
    if size > 1:
        for first in range(0, ranks.world_size, size):  # all ranks make all groups
            members = list(range(first, first + size))
            group = dist.new_group(members, backend=backend, timeout=timeout)
            if ranks.rank in members:
                mine = members, group
        found["within a node"] = all_reduce(ranks, *mine)
    if ranks.world_size > size:
        everyone = dist.new_group(backend=backend, timeout=timeout)
        found["across nodes"] = all_reduce(ranks, list(range(ranks.world_size)), everyone)
    return found


def within(seconds: float, ranks: Ranks) -> dict[str, float] | Finding:
    """`bandwidths`, or what is wrong: also that they do not end within so many seconds, as NCCL may wait in C for ever.

    The thread that waits is left behind: the process must `end`.
    """
    found: Queue[dict[str, float] | Finding] = Queue()
    Thread(target=lambda: found.put(examined("all-reduce", bandwidths, ranks)), daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except Empty:
        return red(
            "all-reduce",
            f"it did not end within {seconds:.0f} s",
            "NCCL_DEBUG=INFO says what NCCL waits for: set NCCL_SOCKET_IFNAME to an interface that all nodes share, "
            "have all ports opened between them, and on one node try NCCL_P2P_DISABLE=1",
        )


def judge_bandwidth(where: str, bytes_per_s: float, gradient_bytes: float, step_s: float) -> Finding:
    """What an all-reduce's speed means for a model with such gradients and steps."""
    seconds = gradient_bytes / bytes_per_s
    found = f"{byte_size(bytes_per_s)}/s: gradients take {1e3 * seconds:.0f} ms of a step's {1e3 * step_s:.0f} ms"
    numbers = {"bytes_per_s": bytes_per_s, "share_of_step": seconds / step_s}
    check = f"all-reduce {where}"
    if seconds > SLOW_SHARE * step_s:
        advice = "give larger batches for each process, or fewer nodes"
        if where == "across nodes":
            advice += "; NCCL_DEBUG=INFO says which network is used: InfiniBand is better than sockets"
        return yellow(check, found, advice, **numbers)
    return green(check, found, **numbers)
