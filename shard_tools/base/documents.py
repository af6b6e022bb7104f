"""Dataclasses as JSON files, which appear whole or not at all; nan and infinity, which JSON has not, are null there."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from shard_tools.base.errors import UserError
from shard_tools.base.files import write_whole

Document = TypeVar("Document")


def write_document(path: Path, form: str, content: Mapping[str, Any]) -> None:
    """Writes `content` as a file of the format `form`."""
    text = json.dumps({"format": form, **without_nan(content)}, indent=1, allow_nan=False) + "\n"
    write_whole(path, text.encode())


def read_document(path: Path, form: str, none: str, again: str) -> dict[str, Any]:
    """The content of a file of the format `form`; UserError, which says `none` if there is no file, or else `again`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise UserError(f"no {path.name} in {path.parent}: {none}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {again}") from None
    if not isinstance(content, dict) or content.pop("format", None) != form:
        raise UserError(f"{path} is not of format {form}: {again}")
    return content


def document(kind: type[Document], content: Mapping[str, Any], path: Path, again: str) -> Document:
    """The dataclass whose `asdict` the content of a file is; UserError, which says `again`, if it is not."""
    try:
        found: Document = _restored(kind, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__} {error}): {again}") from None
    return found


def without_nan(content: Any) -> Any:
    """JSON's content with None, which it writes as null, for numbers that it has not: nan and infinity."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _restored(kind: Any, content: Any) -> Any:
    """The value of a dataclass, or of the type of a field of one."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _restored(hints[field.name], content[field.name]) for field in fields(kind)})
    if kind is float:
        return math.nan if content is None else float(content)
    if isinstance(kind, types.UnionType):
        return None if content is None else _restored(get_args(kind)[0], content)
    if get_origin(kind) is tuple:
        return tuple(_restored(get_args(kind)[0], value) for value in content)
    return content
