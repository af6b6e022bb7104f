"""Errors for people, and exit codes."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Collection, Sequence

FAILED, BAD_INPUT, REQUEUE = 1, 2, 99
"""Exit codes of all commands: a bug or a lost peer; what the user can correct; start me again. 0 is done."""

ENVIRONMENT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk and its permissions can refuse: the user's to correct, not a bug."""


class UserError(Exception):
    """What the user can correct. Its text is one line: what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """The text of an exception on one line; its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def unknown(kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a name that is not among the known ones, with the nearest of those."""
    return UserError(f"unknown {kind} {name!r}: {nearest(name, known)}")


def nearest(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Advice for a name that is not among the known ones: the nearest of those, or else `otherwise` or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise or f"known: {', '.join(known)}"
