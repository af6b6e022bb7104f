"""Finding and ending processes of this machine through /proc and process groups."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


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


def signal_process(pid: int, number: signal.Signals) -> None:
    """Sends a signal to one process; nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Sends a signal to the process group that `pid` leads; nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def leads_session(pid: int) -> bool:
    """Whether `pid` is running and leads its own session, as every agent and every rank does."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def adopt_orphans(adopt: bool) -> None:
    """Makes this process, not init, the parent of descendants whose parent dies, so that it can find and end them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def die_with_parent() -> None:
    """Lets the kernel kill this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
