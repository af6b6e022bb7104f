"""What 1 to 960 ranks ask of the storage and of the network.

    python -m tests.benchmarks.ranks [--quick]

The pieces that each rank reads in an epoch are listed as `hpcgender.data.order` gives them, for images of MS1MV2's
number and size, eight ranks a node: `python -m tests.benchmarks.order` reads real shards. Connections are counted in
/proc, of processes on this machine that form a group as ranks without GPUs do.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hpcgender.data.order import LANES, Order, chunk_length

IMAGES = 5_822_653
SAMPLE_BYTES = 7_900
"""Of MS1MV2, labels and tar headers counted."""
SHARD_IMAGES = 64_000_000 // SAMPLE_BYTES
WORLDS = (1, 8, 64, 320, 960)
PER_NODE = 8
ESTABLISHED = "01"


@dataclass(frozen=True, kw_only=True)
class RanksBenchmark:
    """What 1 to 960 ranks ask of the storage and of the network."""

    quick: bool = False
    """A hundredth of the images, and few processes: to see that it runs."""


@dataclass(frozen=True)
class Asked:
    """What an epoch asks of the storage, of so many ranks."""

    world_size: int
    rank_bytes: int
    """Of the rank that reads most."""
    node_bytes: int
    """Of the node that reads most."""
    bytes: int
    reads: int
    """Of the rank that has most."""
    shards: int
    """That it opens."""
    opens: int
    """Of all ranks."""


def asked(images: int, world_size: int) -> Asked:
    """From the pieces of an epoch and the lanes in which they lie."""
    order = Order(images, chunk_length(images, SAMPLE_BYTES, 256e6), 0, 0)
    pieces = np.arange(len(order.first))
    rank = (np.searchsorted(order.lane_begin, order.edges[:-1], side="right") - 1) % world_size
    first, last = order.spans(pieces)
    read = np.bincount(rank, (last - first + 1) * SAMPLE_BYTES, world_size).astype(np.int64)
    shards = np.concatenate([first // SHARD_IMAGES, last // SHARD_IMAGES])  # a piece is shorter than a shard
    opened = np.unique(np.stack([np.tile(rank, 2), shards]), axis=1)
    opens = np.bincount(opened[0], minlength=world_size)
    reads = np.bincount(rank, 1 + (last // SHARD_IMAGES - first // SHARD_IMAGES), world_size)
    nodes = [read[begin : begin + PER_NODE].sum() for begin in range(0, world_size, PER_NODE)]
    return Asked(
        world_size, int(read.max()), int(max(nodes)), int(read.sum()), int(reads.max()), int(opens.max()), opens.sum()
    )


def rank_of_a_group(rank: int, world_size: int, port: int, pipe: Any) -> None:
    """One rank: it says when it is connected, and ends when it is told to."""
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    dist.barrier()
    pipe.send(sockets_of(os.getpid()))
    pipe.recv()
    dist.destroy_process_group()


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = (str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def connections() -> Iterator[tuple[str, int, int]]:
    """Inode, port here and port there of this machine's established TCP connections."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == ESTABLISHED:
                here, there = (int(fields[place].rpartition(":")[2], 16) for place in (1, 2))
                yield fields[9], here, there


def connected(world_size: int) -> tuple[int, int]:
    """Of a group of ranks: the connections to its store, and those of the rank that has most to other ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("fork")
    pipes, processes = [], []
    for rank in range(world_size):
        mine, its = context.Pipe()
        processes.append(context.Process(target=rank_of_a_group, args=(rank, world_size, port, its)))
        processes[-1].start()
        pipes.append(mine)
    sockets = [pipe.recv() for pipe in pipes]
    found = list(connections())
    store = {inode for inode, here, _ in found if here == port}
    others = {inode for inode, here, there in found if port not in (here, there)}
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()
    return len(store), max(len(own & others) for own in sockets)


def main(config: RanksBenchmark) -> None:
    images = IMAGES // 100 if config.quick else IMAGES
    table = Table(title=f"{images:,} images, an epoch, {LANES} lanes, {PER_NODE} ranks a node", title_justify="left")
    columns = ("ranks", "GB by a rank", "by a node", "by all", "reads of a rank", "shards it opens", "opens of all")
    for column in columns:
        table.add_column(column, justify="right")
    for world_size in WORLDS:
        found = asked(images, world_size)
        sizes = (f"{size / 1e9:.2f}" for size in (found.rank_bytes, found.node_bytes, found.bytes))
        table.add_row(f"{world_size}", *sizes, f"{found.reads:,}", f"{found.shards:,}", f"{found.opens:,}")
    Console(width=120).print(table)
    table = Table(title="a group of ranks without GPUs", title_justify="left")
    for column in ("ranks", "connections to the store", "of a rank to others"):
        table.add_column(column, justify="right")
    import torch.distributed  # noqa: F401  # once, before the forks

    for world_size in (2, 4) if config.quick else (2, 4, 8, 16, 32):
        table.add_row(f"{world_size}", *(f"{count}" for count in connected(world_size)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(RanksBenchmark))
