"""What a log has on a failure: the last traceback, and the lines of launcher, agents, commands and scheduler."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

from hpcgender import log_lines
from hpcgender.log_lines import NOT_REQUEUED, NOT_REQUEUED_YET, STOP_REQUESTED, AttemptLine
from jobs.hosts.processes import how_it_ended
from shard_tools.base.files import tail

_TRACEBACK = "Traceback (most recent call last)"
_MESSAGE = re.compile(
    r"^(launch|hpcgender[\w -]*|shard-tools[\w -]*|agent on \S+|slurmstepd|srun|qrsh|error|bash|/\S+): "
)
_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|oom.kill|Out Of Memory|MemoryError|Cannot allocate memory")
_ADDRESS_SPACE = re.compile(
    r"Resource temporarily unavailable|can't start new thread|failed to map segment from shared object"
)
_LIMIT = 40  # lines of a traceback


def last_attempt(log: Path) -> str:
    """The end of a log since its last attempt began; empty if it cannot be read."""
    return log_lines.last_attempt(tail(log))


def last_traceback(text: str) -> str:
    """The last traceback, from its first line to that of the exception, and what belongs to it; empty if there is none.

    Of a long one the middle is left out.
    """
    start = text.rfind(_TRACEBACK)
    if start < 0:
        return ""
    start = text.rfind("\n", 0, start) + 1
    before, _, _ = text[start:].partition(_TRACEBACK)
    lines = text[start:].splitlines()
    end = len(lines)
    for number, line in enumerate(lines[1:], start=1):
        inner = line.removeprefix(before)
        if inner[:1] not in (" ", ""):  # the exception; its message may continue, up to another message
            end = number + 1
            while end < len(lines) and lines[end].startswith(before) and not _MESSAGE.match(lines[end]) and lines[end]:
                end += 1
            break
    lines = lines[:end]
    if len(lines) > _LIMIT:
        half = _LIMIT // 2
        lines = [*lines[:half], f"{before}  ... {len(lines) - _LIMIT} lines ...", *lines[-half:]]
    return "\n".join(lines)


def messages(text: str) -> list[str]:
    """The last messages of launcher, agents, commands and scheduler, at most eight lines."""
    lines = [line for line in text.splitlines() if _MESSAGE.match(line) and not AttemptLine.parse(line)]
    return list(dict.fromkeys(lines))[-8:]


def cause(text: str) -> str:
    """The line that explains most: the exception, or else the last message of an agent or command; may be empty."""
    traceback = last_traceback(text)
    before, _, _ = traceback.partition(_TRACEBACK)  # `[rank0]: ` on each line, of a distributed training
    lines = [line.removeprefix(before) for line in traceback.splitlines()]
    exceptions = [line for line in lines if line[:1] not in ("", " ")][1:]
    if exceptions:
        return exceptions[0]
    consequences = (STOP_REQUESTED, NOT_REQUEUED, NOT_REQUEUED_YET)
    causes = [line for line in messages(text) if not line.startswith(consequences)]
    return causes[-1] if causes else ""


def explain(log: Path, said: str = "") -> Iterator[str]:
    """The last traceback and messages of a log that is there, in lines; before them what they mean beyond `said`."""
    text = last_attempt(log)
    traceback = last_traceback(text)
    others = [line for line in messages(text) if line not in traceback]
    if out_of_memory(text):
        yield "  memory ran out"
    elif _ADDRESS_SPACE.search(text):
        yield "  a limit of address space or threads was reached: h_vmem limits the former, of which CUDA and DALI"
        yield "  reserve many times what they use: ask for another complex for memory (`memory` in site.toml), or more"
    elif "SIGKILL" not in said and any("SIGKILL" in line for line in others):
        yield f"  a process {how_it_ended(-signal.SIGKILL)}"
    yield f"  log: {log}"
    for block in (traceback.splitlines(), others):
        if block:
            yield ""
            yield from block


def out_of_memory(text: str) -> bool:
    """Whether a log has a message that memory ran out."""
    return _MEMORY.search(text) is not None
