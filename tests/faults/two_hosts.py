"""Two hosts on this machine, each with a network of its own and a cable between them that can be unplugged.

`python -m tests.faults.two_hosts hpcgender ARGUMENTS` is hpcgender in a job that was granted both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hpcgender.commands import HPCGENDER
from jobs.hosts.supervisor import Node
from jobs.local import Local
from jobs.scheduler import Allocation, Host
from jobs.schedulers import SCHEDULERS

NAMES = "TWO_HOSTS"
"""Environment variable: the names of the two networks."""
ADDRESSES = ("10.98.7.1", "10.98.7.2")
CABLE = "hpccable"
"""The name of the interface on both hosts."""


class TwoHosts(Local):
    """A job on both, without a queue behind it: its exit code says whether it is to be started again."""

    name = "two"
    title = "the two hosts"
    has_queue = True

    def is_here(self, environ: Mapping[str, str]) -> bool:
        return False

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        return Allocation(scheduler=self, job_id=str(os.getpid()), hosts=tuple(Host(name, 1) for name in ADDRESSES))

    def requeue(self, allocation: Allocation, until: float) -> str:
        return ""

    def node_on(
        self, host: Host, index: int, command: Sequence[str], directory: str, environ: Mapping[str, str]
    ) -> Node:
        return Node(host=host.name, argv=(*on(os.environ[NAMES].split()[index]), *command), environ=environ)


def on(name: str) -> tuple[str, ...]:
    """The beginning of a command line that runs in a network."""
    return ("ip", "netns", "exec", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def cabled() -> Iterator[tuple[str, str]]:
    """The names of two networks with a cable; CalledProcessError where there can be none, as without root."""
    names = (f"hpc{os.getpid()}a", f"hpc{os.getpid()}b")
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            plug(name, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            _ip("netns", "delete", name)


def plug(name: str, state: str) -> None:
    """Plugs the cable of a host in (`up`) or unplugs it (`down`)."""
    _ip("-n", name, "link", "set", CABLE, state)


if __name__ == "__main__":
    SCHEDULERS[TwoHosts.name] = TwoHosts()
    sys.exit(HPCGENDER.run(sys.argv[2:]))
