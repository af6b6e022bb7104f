"""The supervisor: starts one process per host, watches them, hands signals on, and ends them in bounded time.

Each process is started here: it runs on this host, or is the srun or qrsh that runs it on another one. Signals do not
pass through these alike (srun turns TERM into a kill, qrsh leaves its task at any signal), and a scheduler may not
notice that a host is lost. Hence the lifeline and the connection that `processes` describes.

The supervisor decides nothing: who runs it looks at `ends` after each `wait` and asks for what follows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import processes
from .presence import Presence, is_silent

FIRST_LOST, KILLED, REPORTED = 93, 96, 97
"""Exit codes of a host's process: the supervisor's host is lost, which only a shell around the process can see; killed
by a signal; failed, and the reason is in the log."""

END_SECONDS = 15.0
"""Time for a host to end its processes after its lifeline has ended, before what is left here is killed."""

GRACE_SECONDS = 10.0
"""Time between the end of a host's connection and the end of the srun or qrsh to it, before the host counts as lost."""

_SOON = (1, 1, 8)  # seconds, seconds, probes without an answer
_POLL_SECONDS = 0.05
_PAUSE_SECONDS = 1.0
_STARTED = (0, 2, 98, 99, 126, 127, REPORTED)
"""Exit codes of processes that ran on their host, and of shells there that could not start them. srun has 233, among
others, where it cannot start any."""
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, KILLED)  # here; on another host, by srun; by qrsh
# No answer; or that of a host which was started again, and knows nothing of the connection.
_LOST = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ECONNRESET)
_LAST_ANSWER = slice(56, 60)  # tcpi_last_ack_recv in what Linux returns for TCP_INFO: milliseconds ago


class Exit(NamedTuple):
    """What the exit code of a node's process means. Minus the number of a signal that killed it here."""

    code: int
    unreachable: bool = False
    """Whether it says that the host is lost."""
    deletes_job: bool = False
    """Whether the scheduler deletes the job because of it."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """What to run on one host: a command to start here, what changes in its environment, and how to read its code."""

    host: str
    argv: Sequence[str]
    environ: Mapping[str, str | None] = field(default_factory=dict)
    """Added to the environment; None: taken out of it."""
    read_exit: Callable[[int], Exit] = Exit


@dataclass(frozen=True, kw_only=True)
class End:
    """How a node's process ended.

    `torn_down` if all were being ended already, `forced` if they were being killed, `unreachable` if the host is lost.
    """

    host: str
    code: int
    torn_down: bool
    forced: bool = False
    unreachable: bool = False
    deletes_job: bool = False

    @property
    def lost(self) -> bool:
        """Whether the host is lost, or its process was killed, and not by the supervisor."""
        return self.unreachable or (self.code in _KILLED and not self.forced)


class Supervisor:
    """The processes of all hosts, from entering to leaving the `with`; none is left running afterwards.

    `ends` has how they ended, in that order. Entering raises FileNotFoundError if a command does not exist.
    """

    def __init__(self, nodes: Sequence[Node], directory: str, listener: Listener | None = None) -> None:
        self.ends: list[End] = []
        self.clock = 0.0
        """Seconds since the start, without those in which the job was suspended."""

        self._nodes = nodes
        self._directory = directory
        self._listener = listener
        self._presences = {index: Presence(node.host) for index, node in enumerate(nodes) if listener and index}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._unreachable: set[int] = set()
        self._ended_at: float | None = None
        self._forced = 0
        self._looked = time.monotonic()

    def __enter__(self) -> Supervisor:
        processes.adopt_orphans(True)
        for presence in self._presences.values():
            presence.start()
        try:
            for index, node in enumerate(self._nodes):
                environ = {**os.environ, **node.environ}
                self._running[index] = subprocess.Popen(
                    node.argv,
                    stdin=subprocess.PIPE,
                    cwd=self._directory,
                    env={name: value for name, value in environ.items() if value is not None},
                    start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for presence in self._presences.values():
            presence.stop()
        for process in self._running.values():
            _close(process)
            processes.signal_group(process.pid, signal.SIGKILL)  # those of other hosts end by their lifeline
            process.wait()
        self._running.clear()
        self._end_orphans()
        processes.adopt_orphans(False)

    @property
    def silent(self) -> list[str]:
        """Hosts whose process runs but has not connected: it has not started yet, or there is a firewall."""
        known = self._listener.known if self._listener else range(len(self._nodes))
        return [self._nodes[index].host for index in self._running if index not in known]

    def wait(self) -> bool:
        """Waits a moment and notes what has ended; returns whether anything still runs."""
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        self.clock += min(now - self._looked, _PAUSE_SECONDS)
        self._looked = now
        for index in self._lost():
            if index in self._running and index not in self._unreachable:
                self._unreachable.add(index)
                processes.signal_group(self._running[index].pid, signal.SIGKILL)
        for index, process in list(self._running.items()):
            code = process.poll()
            if code is not None and not (self._listener and self._listener.is_in_doubt(index)):
                self._note(index, code)
        if self._ended_at is not None:
            # srun and qrsh clean up after themselves at TERM; what is left after that is killed.
            steps = ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS + 5))
            for place, (number, seconds) in enumerate(steps):
                if self.clock > self._ended_at + seconds and self._forced == place:
                    self._forced += 1
                    for process in self._running.values():
                        processes.signal_group(process.pid, number)
        return bool(self._running)

    def _lost(self) -> set[int]:
        """The nodes whose host does not answer, before and after their process has connected."""
        if not self._listener:
            return set()
        found = self._listener.lost(self.clock)
        for index in self._listener.known & {*self._presences}:
            self._presences.pop(index).stop()
        return found | {index for index, presence in self._presences.items() if presence.is_lost}

    def _note(self, index: int, code: int) -> None:
        node = self._nodes[index]
        meaning = node.read_exit(code)
        first = not any(end.code for end in self.ends)
        if first and index in self._presences and code not in _STARTED and is_silent(node.host):
            self._unreachable.add(index)
        _close(self._running.pop(index))
        self._end_orphans()
        self.ends.append(
            End(
                host=node.host,
                code=meaning.code,
                torn_down=self._ended_at is not None,
                forced=self._forced > 0,
                unreachable=meaning.unreachable or index in self._unreachable,
                deletes_job=meaning.deletes_job,
            )
        )

    def send(self, number: int) -> None:
        """Hands a signal on to the processes of all hosts."""
        for process in self._running.values():
            assert process.stdin
            with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or is ending
                process.stdin.write(bytes([number]))
                process.stdin.flush()

    def end(self) -> None:
        """Ends the processes of all hosts; call `wait` until it returns False, in less than half a minute."""
        if self._ended_at is None:
            self._ended_at = self.clock
            if self._listener:
                self._listener.ask()  # a process may have failed because another one's host is lost
            for process in self._running.values():
                _close(process)

    def _end_orphans(self) -> None:
        """Ends what a killed process has left: it became this process's child."""
        known = {process.pid for process in self._running.values()}
        for pid in processes.leaders():
            if pid not in known:
                processes.signal_group(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


class Listener:
    """The supervisor's end of the connections. A host that never connects, as through a firewall, is not watched.

    `host`: the name of this host for the others.
    """

    def __init__(self, host: str) -> None:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self.known: set[int] = set()
        """The nodes that have connected."""

        self._host = host
        self._server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        self._server.setblocking(False)
        self._nodes: dict[socket.socket, int | None] = {}
        self._closed: dict[int, float] = {}
        self._asked: float | None = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._server, *self._nodes):
            connection.close()

    def address(self, index: int) -> str:
        """What the process of node `index` needs for its `Lifeline`: `index@host:port`."""
        return f"{index}@{self._host}:{self._server.getsockname()[1]}"

    def lost(self, now: float) -> set[int]:
        """The nodes whose host does not answer, or whose connection ended GRACE_SECONDS before `now`.

        The process that started a node on a host in good order has ended by then, too.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._server.accept()
                connection.setblocking(False)
                processes.keep_alive(connection)
                self._nodes[connection] = None
        found = set()
        for connection, index in list(self._nodes.items()):
            try:
                received = connection.recv(64)
            except BlockingIOError:
                continue
            except OSError as error:
                received = b""
                if error.errno in _LOST and index is not None:
                    found.add(index)
            if received.strip().isdigit():
                self._nodes[connection] = int(received)
                self.known.add(int(received))
                continue
            if index is not None:
                self._closed[index] = now
            connection.close()
            del self._nodes[connection]
        return found | {index for index, closed in self._closed.items() if now > closed + GRACE_SECONDS}

    def ask(self) -> None:
        """Has all hosts asked once a second from now on, and not by the half minute, whether they are there."""
        if self._asked is None:
            self._asked = time.monotonic()
            for connection in self._nodes:
                processes.keep_alive(connection, *_SOON)

    def is_in_doubt(self, index: int) -> bool:
        """Whether the host of a process that has ended neither closed its connection nor answered: it is asked now."""
        connection = next((connection for connection, node in self._nodes.items() if node == index), None)
        if not connection:
            return False
        self.ask()
        assert self._asked is not None
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ANSWER.stop)
        return time.monotonic() - int.from_bytes(info[_LAST_ANSWER], sys.byteorder) / 1000 < self._asked
