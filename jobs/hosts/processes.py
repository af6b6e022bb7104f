"""The processes of one host: the lifeline from their supervisor, their signals and their end.

The lifeline is standard input, a pipe whose other end only the supervisor holds; srun and qrsh carry it to other hosts.
Each byte is the number of a signal for the processes of this host. The end of the pipe, also if the supervisor was
killed, means that they must end.

Where the supervisor's host loses its power or its network, no pipe ends that another host could see. So there is a TCP
connection to it, too, which the kernels of both hosts keep alive, also while the job is suspended: each side notices
within half a minute that the other one is lost. Where a firewall refuses the connection, the lifeline has to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

_IDLE, _INTERVAL, _PROBES = 10, 5, 4  # seconds, seconds, probes without an answer
_NO_ANSWER = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
_CONNECT_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Lifeline:
    """What the processes of this host are asked for, by the supervisor and by signals to this process.

    `stdin`: standard input is the lifeline; it is replaced by /dev/null, so that no child reads it. `supervisor`: the
    address from `supervisor.Listener.address`, "" for no connection. `signals` are received like those of the lifeline
    instead of having their default effect; this needs the main thread.
    """

    def __init__(self, *, stdin: bool, supervisor: str = "", signals: Sequence[signal.Signals] = ()) -> None:
        self._sources = [_take_stdin()] if stdin else []
        self.lost = threading.Event()
        """Set once the supervisor's host gives no answer any more."""
        if supervisor:
            self._sources.append(_watch(supervisor, self.lost))
        if signals:
            own, write_end = os.pipe()
            os.set_blocking(write_end, False)
            signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
            self._sources.append(own)
        for number in signals:
            signal.signal(number, lambda *_: None)

    def read(self, seconds: float | None) -> bytes | None:
        """The numbers of signals that have arrived, after `seconds` at most (None: no limit).

        None if the processes must end: the supervisor asks for it, or it or its host is lost.
        """
        ready, _, _ = select.select(self._sources, [], [], seconds)
        found = [os.read(source, 64) for source in ready]
        return None if b"" in found else b"".join(found)


def _take_stdin() -> int:
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return lifeline


def _watch(supervisor: str, lost: threading.Event) -> int:
    """Connects to the supervisor; returns a pipe that ends when it is, and sets `lost` if its host is lost."""
    index, _, address = supervisor.partition("@")
    host, _, port = address.rpartition(":")
    watched, write_end = os.pipe()

    def watch() -> None:
        try:
            connection = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
        except OSError:
            return  # a firewall, or the supervisor has ended, which ends the lifeline
        with connection:
            connection.settimeout(None)
            keep_alive(connection)
            try:
                connection.sendall(f"{index}\n".encode())
                while connection.recv(64):
                    pass
            except OSError as error:  # a supervisor that merely ends closes the connection, and the lifeline
                if error.errno in _NO_ANSWER:  # not of one that was killed, and so of a host that answers
                    lost.set()
                os.close(write_end)

    threading.Thread(target=watch, daemon=True).start()
    return watched


def keep_alive(connection: socket.socket, idle: int = _IDLE, interval: int = _INTERVAL, probes: int = _PROBES) -> None:
    """Makes the kernel probe an idle connection, so that it fails after its other end is lost: within half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", interval), ("TCP_KEEPCNT", probes)):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def children() -> list[int]:
    """The pids of this process's direct children that are running."""
    own = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # The name, in parentheses, may hold anything; state and parent follow it.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if parent == own and state != "Z":
                found.append(int(stat.parent.name))
    return found


def leaders() -> list[int]:
    """The pids of this process's running children that lead a session, as all ranks, tasks and nodes do."""
    found = []
    for pid in children():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == pid:
                found.append(pid)
    return found


def signal_process(pid: int, number: int) -> None:
    """Sends a signal to one process; nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Sends a signal to the process group that `pid` leads; nothing if it has ended or changed its user."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end(pids: Collection[int], seconds: float) -> None:
    """Ends children and their process groups: TERM to the children, and after `seconds` at most KILL to the groups.

    TERM is not for the groups: a rank that saves its work needs its loaders.
    """
    running = set(pids) & set(children())
    for pid in running:
        signal_process(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while running & set(children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        signal_group(pid, signal.SIGKILL)


def exit_words(code: int) -> str:
    """How a process has ended, in words: `exit code 3`, or `killed by SIGKILL` with the most common cause.

    If a signal has killed it, the code is minus its number, or as a shell, srun and Grid Engine tell it 128 more.
    """
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"killed by signal {number}" if code < 0 else f"exit code {code}"
    return f"killed by {name}{' (often: out of memory)' if number == signal.SIGKILL else ''}"


def how_it_ended(code: int) -> str:
    """The same as what a sentence says of a process: `ended with exit code 3`, or `was killed by SIGKILL`."""
    words = exit_words(code)
    return f"was {words}" if words.startswith("killed") else f"ended with {words}"


def adopt_orphans(adopt: bool) -> None:
    """Makes this process, not init, the parent of descendants whose parent dies, so that it can find and end them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Lets the kernel send this process a signal when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
