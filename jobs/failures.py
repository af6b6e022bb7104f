"""Which rank's failure tells most about why a node failed, and what to say of it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

KILLED, SAID, PORT_TAKEN = 96, 97, 98
"""Exit codes between an agent and its launcher: killed by a signal, failed and said why, and the rendezvous port is
somebody else's."""

# What a rank says whose peer died first.
_PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistBackendError", "DistNetwork")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to say of a failure, and for how long (seconds) to wait whether another node has told the cause already."""

    text: str
    patience: float


def plain_code(exitcode: int) -> int:
    """A rank's exit code in the contract's terms: 0, 2 and 99 as they are, 1 for anything else."""
    return exitcode if exitcode in (0, BAD_INPUT, REQUEUE) else FAILED


def first_failure(failures: Mapping[int, ProcessFailure], stopping: bool) -> tuple[int, ProcessFailure]:
    """The global rank and the failure that tell most about why a node's ranks failed; `stopping` if they were asked to.

    Bad input comes first. 99 and death by TERM come next if ranks were asked to stop; if not, they can be the answer to
    the TERM that follows another's crash, and come last. That a signal ended a rank is known a moment after its
    peers noticed, which the two seconds make up for: times are whole seconds.
    """

    def order(rank: int) -> tuple[int, int]:
        failure = failures[rank]
        if failure.exitcode == BAD_INPUT:
            place = 0
        elif failure.exitcode in (REQUEUE, -signal.SIGTERM):
            place = 1 if stopping else 3 if failure.exitcode == REQUEUE else 4
        else:
            place = 2
        return place, failure.timestamp - (2 if failure.exitcode < 0 else 0)

    rank = min(failures, key=order)
    return rank, failures[rank]


def failure_report(rank: int, host: str, failure: ProcessFailure, rank_log: str) -> Report | None:
    """What to say of a failed rank: one line, and before it the words of a rank that speaks into a file; or nothing.

    `rank_log` is the path of the logs of ranks above 0, with `{rank}` in it; empty if they write to the agent's output.
    """
    log = Path(rank_log.replace("{rank}", str(rank))) if rank and rank_log else None
    how = f"exit code {failure.exitcode}" if failure.exitcode > 0 else signal_name(-failure.exitcode)
    line = f"agent on {host}: rank {rank} failed with {how}" + (f"; its log: {log}" if log else "")
    if plain_code(failure.exitcode) != FAILED:  # the rank has said why in one line, which only a file hides
        if failure.exitcode == REQUEUE or not log:
            return None
        # Bad input is mostly bad for all, and rank 0 says so.
        return Report(text="\n".join(filter(None, (_tail(log).rstrip().rpartition("\n")[2], line))), patience=0.7)
    if failure.exitcode < 0:
        return Report(text=line, patience=0.0)
    words = recorded_traceback(failure.message) or (last_traceback(log) if log else "")
    follows = not words or any(lost in words for lost in _PEER_LOST)
    return Report(text="\n".join(filter(None, (words if rank else "", line))), patience=2.0 if follows else 0.0)


def recorded_traceback(message: str | dict[str, Any]) -> str:
    """The traceback that torch's `record` left for the agent, or nothing."""
    return str(message.get("extraInfo", {}).get("py_callstack", "")).rstrip() if isinstance(message, dict) else ""


def last_traceback(log: Path) -> str:
    """The traceback that a rank's log ends with, or nothing."""
    text = _tail(log)
    start = text.rfind("Traceback (most recent call last)")
    return text[text.rfind("\n", 0, start) + 1 :].rstrip() if start >= 0 else ""


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-32_768:].decode(errors="replace")
    except OSError:
        return ""


def signal_name(number: int) -> str:
    """A signal's name, with what it mostly means."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (often: out of memory)" if number == signal.SIGKILL else name
