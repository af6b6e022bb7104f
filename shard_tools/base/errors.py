"""Errors for people, and exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from shard_tools.base.text import printable

FAILED, BAD_INPUT, STORAGE, REQUEUE = 1, 2, 75, 99
"""Exit codes of all commands: a bug or a lost peer; what the user can correct; the storage failed, for which a launcher
starts the job again; stopped, start me again. 0 is done."""

LONGEST = 1500
"""Characters of a message: enough for two long paths and what is said of them."""


class UserError(Exception):
    """What the user can correct. Its text is one line: what is wrong, where, and what to do."""


class StorageError(Exception):
    """The storage, or the network to it, fails; the input may be well. Its text is one line."""


def one_line(error: BaseException) -> str:
    """The text of an exception on one line; its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def as_line(error: BaseException) -> str:
    """The text of an error as a terminal may show it: it may repeat what stands in an input, however long or odd."""
    text = printable(str(error))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 400]} ... {text[-400:]}"


def unknown(kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a name that is not among the known ones, with the nearest of those."""
    return UserError(f"unknown {kind} {name!r}: {nearest(name, known)}")


def nearest(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Advice for a name that is not among the known ones: the nearest of those, or else `otherwise` or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise or f"known: {', '.join(known)}"
