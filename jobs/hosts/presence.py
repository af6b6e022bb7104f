"""Whether a host is there whose process has not connected yet: whether it answers at all.

From then on the connection tells, see `supervisor`. Until then srun and qrsh tell nothing for minutes of a host that is
lost while they start a process there. A host that is there refuses a connection to a port where nothing listens; one
that is lost does not. Nor does one behind a firewall that drops packets or rejects them as prohibited, which has never
answered; a firewall that refuses connections in the host's name is taken for the host.

A host that gives no answer at the very port through which the processes meet has them wait in vain: `stays_silent`.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import Any

_PORT = 9  # discard, where nothing listens any more
_SECONDS = 5.0  # for an answer, and between two attempts
_PAUSE_SECONDS = 1.0
_MISSES = 3
MEET_SECONDS = 60.0
"""How long a host may give no answer at a port that the others need."""

_ANSWERS = (errno.ECONNREFUSED, errno.ECONNRESET)


class Presence(threading.Thread):
    """Watches one host, from `start` until `stop`."""

    def __init__(self, host: str) -> None:
        super().__init__(daemon=True)
        self.host = host
        self._answered = False
        self._misses = 0
        self._stopped = threading.Event()

    @property
    def is_lost(self) -> bool:
        """Whether the host has answered, and does so no more: for less than half a minute, without pauses of this."""
        return self._answered and self._misses >= _MISSES

    def run(self) -> None:
        while not self._stopped.is_set() and not self.is_lost:
            if is_silent(self.host):
                self._misses += 1
            else:
                self._answered, self._misses = True, 0
            self._stopped.wait(_SECONDS)

    def stop(self) -> None:
        """Ends the watch, soon."""
        self._stopped.set()


def stays_silent(host: str, port: int) -> bool:
    """Whether a host has given no answer at a port for MEET_SECONDS, without pauses of this; waits until it is known.

    It is not slow then, as its kernel refuses a connection where nothing listens yet: it is lost, or a firewall is in
    between.
    """
    silent = 0.0
    while silent < MEET_SECONDS:
        began = time.monotonic()
        if not is_silent(host, port):
            return False
        time.sleep(_PAUSE_SECONDS)
        silent += min(time.monotonic() - began, 2 * _SECONDS)
    return True


def is_silent(host: str, port: int = _PORT) -> bool:
    """Whether a host gives no answer within seconds, also for a firewall; False if its name has no address."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return not any(answers(family, address) for family, _, _, _, address in places)


def answers(family: int, address: Any) -> bool:
    """Whether one of its addresses accepts or refuses a connection."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(_SECONDS)
            one.connect(address)
    except OSError as error:
        return error.errno in _ANSWERS
    return True
