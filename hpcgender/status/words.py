"""What a log has on a failure: the last traceback, and the lines of launcher, agents, commands and scheduler."""

from __future__ import annotations

import re
from pathlib import Path

from hpcgender import log_lines
from hpcgender.log_lines import NOT_REQUEUED, STOP_REQUESTED, AttemptLine
from shard_tools.base.files import tail

_TRACEBACK = "Traceback (most recent call last)"
_SPOKEN = re.compile(
    r"^(launch|hpcgender[\w -]*|shard-tools[\w -]*|agent on \S+|slurmstepd|srun|qrsh|error|bash|/\S+): "
)
_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|oom.kill|Out Of Memory|MemoryError|Cannot allocate memory")
_LIMIT = 40  # lines of a traceback


def last_attempt(log: Path) -> str:
    """The end of a log since the last attempt began, as far as a glance goes; empty if it cannot be read."""
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
        if inner[:1] not in (" ", ""):  # the exception; its message may go on, up to a line that is another's
            end = number + 1
            while end < len(lines) and lines[end].startswith(before) and not _SPOKEN.match(lines[end]) and lines[end]:
                end += 1
            break
    lines = lines[:end]
    if len(lines) > _LIMIT:
        half = _LIMIT // 2
        lines = [*lines[:half], f"{before}  ... {len(lines) - _LIMIT} lines ...", *lines[-half:]]
    return "\n".join(lines)


def spoken(text: str) -> list[str]:
    """The last lines in which launcher, agents, commands or the scheduler speak for themselves, at most eight."""
    lines = [line for line in text.splitlines() if _SPOKEN.match(line) and not AttemptLine.parse(line)]
    return list(dict.fromkeys(lines))[-8:]


def summary(text: str) -> str:
    """The one line that tells most: the exception, or else what an agent or the command said last; may be empty."""
    exceptions = [line for line in last_traceback(text).splitlines() if line[:1] not in ("", " ")][1:]
    if exceptions:
        return exceptions[0]
    said = [line for line in spoken(text) if not line.startswith((STOP_REQUESTED, NOT_REQUEUED))]
    return said[-1] if said else ""


def tells_of_memory(text: str) -> bool:
    """Whether a text tells that memory ran out."""
    return _MEMORY.search(text) is not None
