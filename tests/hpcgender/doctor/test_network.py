"""`hpcgender doctor`: clocks, interface, ports and collectives; the other hosts are fakes."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from hpcgender.distributed import Ranks
from hpcgender.doctor import network, storage
from hpcgender.doctor.finding import Finding, examined
from jobs.machine import candidate_ports, ephemeral_range

CPU = torch.device("cpu")


def test_clocks_that_differ_are_told() -> None:
    assert storage.judge_clocks({"node1": 0.0, "node2": 0.01}).state == "green"
    assert storage.judge_clocks({"node1": 0.0, "node2": -5.0}).state == "yellow"
    found = storage.judge_clocks({"node1": 0.0, "node2": 90.0})
    assert found.state == "red"
    assert "node2 is ahead" in found.found


class Barrier:
    """Ranks that are threads of this process, and clocks that say what is written here."""

    def __init__(self, clocks: list[list[float]]) -> None:
        self.clocks = clocks
        self.barrier = threading.Barrier(len(clocks))
        self.own = threading.local()
        self.gathered: list[Any] = [None] * len(clocks)

    def wait(self) -> None:
        self.barrier.wait(60)

    def time(self) -> float:
        return float(next(self.own.clock))

    def gather(self, value: Any) -> list[Any]:
        self.gathered[self.own.rank] = value
        self.wait()
        return self.gathered if self.own.rank == 0 else []

    def measured(self, rank: int, host: str) -> dict[str, float]:
        self.own.rank, self.own.clock = rank, iter(self.clocks[rank])
        return network.clocks(cast(Ranks, self), host, rounds=len(self.clocks[rank]))


def test_clocks_are_compared_at_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which not all leave at once: of some rounds the smallest difference is nearest to that of the clocks."""
    here = [100.0, 101.0, 102.0]
    there = [190.9, 191.01, 192.4]  # 90 s ahead
    behind = [94.98, 95.8, 96.6]  # 5 s behind, and also late
    ranks = Barrier([here, there, [time + 0.5 for time in there], behind])
    monkeypatch.setattr(network, "dist", SimpleNamespace(barrier=ranks.wait))
    monkeypatch.setattr(network, "time", ranks)
    with ThreadPoolExecutor(4) as pool:
        found, *others = pool.map(ranks.measured, range(4), ["node1", "node2", "node2", "node3"])
    assert found == pytest.approx({"node1": 0.0, "node2": 90.01, "node3": -5.02})
    assert others == [{}, {}, {}]


def test_an_interface_that_others_cannot_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.interface(False, {}, "localhost").state == "green"
    assert network.interface(True, {}, "localhost").state == "red"
    assert network.interface(True, {}, "no.such.host.invalid").state == "red"
    assert network.interface(True, {"GLOO_SOCKET_IFNAME": "lo"}).found == "lo, by GLOO_SOCKET_IFNAME"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    found = examined("interface", network.interface, True, os.environ)
    assert found.state == "red"
    assert "nowhere0" in found.found


def test_ports_in_use_are_told() -> None:
    ports = list(candidate_ports("12345", ephemeral_range()))
    with ExitStack() as opened:
        for number, port in enumerate(ports, 1):
            server = opened.enter_context(socket.socket(socket.AF_INET6))
            server.bind(("", port))
            server.listen()
            if number == 5:
                assert network.ports("12345").state == "yellow"
        assert network.ports("12345").state == "red"
    assert network.ports("12345").state == "green"


def test_ranks_that_do_not_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (port, *_) = candidate_ports("6789", ephemeral_range())
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(network, "TIMEOUT", timedelta(seconds=1))
    found = examined("rendezvous", network.join, Ranks(1, 2, CPU))
    assert found.state == "red"
    assert "timed out" in found.found


def test_a_slow_all_reduce_is_told() -> None:
    assert network.judge_bandwidth("across nodes", 1e10, gradient_bytes=1e8, step_s=0.1).state == "green"
    found = network.judge_bandwidth("across nodes", 1e8, gradient_bytes=1e8, step_s=0.1)
    assert found.state == "yellow"
    assert "gradients take 1000 ms of a step's 100 ms" in found.found
    assert "InfiniBand" in found.advice


def test_a_wrong_sum_is_told(tmp_path: Path) -> None:
    ranks = Ranks(0, 1, CPU)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert network.all_reduce(ranks, [0], None) > 0
        found = examined("all-reduce", network.all_reduce, ranks, [0, 1], None)  # as if rank 1 added nothing
    finally:
        dist.destroy_process_group()
    assert isinstance(found, Finding)
    assert (found.check, found.state) == ("all-reduce", "red")
    assert "the sum over ranks [0, 1] is wrong" in found.found
