"""The hosts that Grid Engine granted to a job, from its PE_HOSTFILE."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path


def granted_hosts(environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """The hosts of this job and the slots on each; the first is where the job script runs.

    Raises ValueError if PE_HOSTFILE cannot be read, as on all hosts but the first.
    """
    hostfile = environ.get("PE_HOSTFILE")
    if not hostfile:
        return {socket.gethostname(): int(environ.get("NSLOTS", "1"))}
    try:
        hosts = parse_pe_hostfile(Path(hostfile).read_text())
    except OSError as error:
        raise ValueError(f"cannot read PE_HOSTFILE {hostfile}: {error.strerror}: run in the job script") from error
    if not hosts:
        raise ValueError(f"PE_HOSTFILE {hostfile} names no host")
    return hosts


def parse_pe_hostfile(text: str) -> dict[str, int]:
    """Slots by host of lines `host slots queue range`, in order; slots in several queues of a host are added up.

    Raises ValueError if a line is not so.
    """
    slots: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 2 or not fields[1].isdigit():
            raise ValueError(f"PE_HOSTFILE line {number} is not `host slots ...`: {line!r}")
        slots[fields[0]] = slots.get(fields[0], 0) + int(fields[1])
    return slots
