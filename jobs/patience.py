"""Asks a scheduler again that does not answer, as long as there is time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import chain, repeat

PAUSES = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds before each repetition; the last one before all further ones."""
LAST_SECONDS = 5.0
"""How long the last attempt may take, beyond the time that there is."""


def asked_again(ask: Callable[[], str], is_passing: Callable[[str], bool], until: float) -> str:
    """Why `ask` failed at last, in one line, as it returned it; empty once it has not.

    It is called again after pauses while its failure `is_passing`, for the last time at `until`, in Unix time; once if
    that is over. Of failures with the same words one line is printed.
    """
    pauses = chain(PAUSES, repeat(PAUSES[-1]))
    said = ""
    while failed := ask():
        left = until - time.time()
        if left <= 0 or not is_passing(failed):
            return failed
        if failed != said:
            clock = time.strftime("%H:%M:%S", time.localtime(until))
            print(f"launch: not requeued yet, and asked again until {clock}: {failed}", file=sys.stderr, flush=True)
            said = failed
        time.sleep(min(next(pauses), left))
    return ""


def seconds_left(until: float) -> float:
    """The limit of a command that is to end by `until`, in seconds."""
    return max(0.0, until - time.time()) + LAST_SECONDS
