"""WebDataset keys: the names of samples in their shards."""

from __future__ import annotations

import re

from shard_tools.tar import MAX_NAME

MAX_KEY = MAX_NAME - len("+") - len(str(2**32)) - len(".jpeg")
NAMELESS = "image"

_PLAIN = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")


def key_of(name: str) -> str:
    """The key of an image by its name in the source, without extensions and characters that keys must not have.

    NAMELESS if nothing is left of it, as of names without Latin letters and digits.
    """
    if _PLAIN.fullmatch(name):  # most are, and this is several times as fast
        key = name.replace("/", "-")
    else:
        directory, _, file = name.rpartition("/")
        stem = file.split(".", 1)[0]
        key = _FOREIGN.sub("-", f"{directory}/{stem}" if directory else stem)
    return key.strip("-")[-MAX_KEY:].lstrip("-") or NAMELESS


def with_row(key: str, row: int) -> str:
    """The key of an image that shares its own with another one: no other key has a plus."""
    return f"{key}+{row}"
