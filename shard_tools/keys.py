"""WebDataset keys: the names of samples in their shards."""

from __future__ import annotations

import re

from shard_tools.tar import MAX_NAME

MAX_KEY = MAX_NAME - len("+") - len(str(2**32)) - len(".jpeg")

_PLAIN = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")


def key_of(name: str) -> str:
    """The key of an image by its name in the source, without extensions and characters that keys must not have."""
    if _PLAIN.fullmatch(name):  # most are, and this is several times as fast
        return name.replace("/", "-").strip("-")[-MAX_KEY:]
    directory, _, file = name.rpartition("/")
    stem = file.split(".", 1)[0]
    return _FOREIGN.sub("-", f"{directory}/{stem}" if directory else stem).strip("-")[-MAX_KEY:]


def with_row(key: str, row: int) -> str:
    """The key of an image that shares its own with another one: no other key has a plus."""
    return f"{key}+{row}"
