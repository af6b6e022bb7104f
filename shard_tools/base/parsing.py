"""JSON and TOML from files that others may have written: what no reader could follow is refused as what is no JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEEPEST = 100
"""Tables and lists within each other; what is written here has ten, and Python's own readers fail from about 300 on."""


def load_json(raw: bytes | str) -> Any:
    """What a JSON text says; ValueError if it is none, or is nested deeper than DEEPEST."""
    return _followed(json.loads, raw)


def load_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; ValueError if it is none, or is nested deeper than DEEPEST."""
    return _followed(tomllib.loads, text)  # type: ignore[no-any-return]


def _followed(parse: Callable[[Any], Any], text: bytes | str) -> Any:
    """What is parsed, level by level, for whoever follows it."""
    with suppress(RecursionError):
        content = parse(text)
        level = [content]
        for _ in range(DEEPEST + 1):
            level = [
                inner
                for outer in level
                if isinstance(outer, dict | list)
                for inner in (outer.values() if isinstance(outer, dict) else outer)
            ]
            if not level:
                return content
    raise ValueError(f"it is nested more than {DEEPEST} deep")
