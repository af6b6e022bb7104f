"""Whether a node is still there: a connection between its agent and the launcher, which the kernels keep alive.

Where a host loses its power or its network, nothing ends that others could see: its ranks' peers wait for their
time-out, and Grid Engine looks after the first host of a job only. TCP's own keep-alive tells within half a minute, on
both sides, so that the ranks of other hosts end, too, when the launcher's is the one that is lost.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable

GRACE_SECONDS = 10.0
"""How long it may take until the launcher hears of an agent's end."""

_IDLE, _INTERVAL, _PROBES = 10, 5, 4  # seconds, seconds, probes without an answer
_CONNECT_SECONDS = 30.0
_GONE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)


class Listener:
    """The launcher's end. Agents that never come, as through a firewall, are not watched."""

    def __init__(self) -> None:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        self._server.setblocking(False)
        self._nodes: dict[socket.socket, int | None] = {}
        self._closed: dict[int, float] = {}

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def lost(self) -> set[int]:
        """The node ranks of agents whose host does not answer any more, or which ended GRACE_SECONDS ago.

        Of an agent that ended on a host that is well, whoever started it there has told by then.
        """
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._server.accept()
            connection.setblocking(False)
            _keep_alive(connection)
            self._nodes[connection] = None
        found = set()
        for connection, node in list(self._nodes.items()):
            try:
                said = connection.recv(64)
            except BlockingIOError:
                continue
            except OSError as error:
                said = b""
                if error.errno in _GONE and node is not None:
                    found.add(node)
            if said.strip().isdigit():
                self._nodes[connection] = int(said)
                continue
            if node is not None:
                self._closed[node] = time.monotonic()
            connection.close()
            del self._nodes[connection]
        return found | {node for node, ended in self._closed.items() if time.monotonic() > ended + GRACE_SECONDS}

    def close(self) -> None:
        for connection in (self._server, *self._nodes):
            connection.close()
        self._nodes.clear()


def watch_launcher(address: str, node: int, when_lost: Callable[[], object]) -> None:
    """The agent's end: connects to `host:port`, and calls `when_lost` from a thread if that host answers no more.

    Where the connection is refused, the agent goes without.
    """
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
    except OSError:
        return
    connection.settimeout(None)
    _keep_alive(connection)

    def wait() -> None:
        with connection:
            try:
                connection.sendall(b"%d\n" % node)
                while connection.recv(64):
                    pass
            except OSError as error:
                if error.errno in _GONE:
                    when_lost()

    threading.Thread(target=wait, daemon=True).start()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", _IDLE), ("TCP_KEEPINTVL", _INTERVAL), ("TCP_KEEPCNT", _PROBES)):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
