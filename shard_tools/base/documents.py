"""Dataclasses from JSON and TOML, with the place of what is wrong in one line; JSON files are written whole.

JSON has neither nan nor infinity: floats that are not finite are written as null, and null is read as nan.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from shard_tools.base.errors import UserError, nearest, one_line
from shard_tools.base.files import write_whole
from shard_tools.base.parsing import load_json, load_toml
from shard_tools.base.storage import retried
from shard_tools.base.text_files import read_text

if TYPE_CHECKING:
    from cattrs import Converter

Document = TypeVar("Document")
Place = Sequence[str | int]
"""The way to a value: names of fields, keys of tables and indices of lists."""


def write_document(path: Path, form: str, content: Mapping[str, Any]) -> None:
    """Writes `content` as a JSON file of the format `form`, whole or not at all, and syncs it."""
    text = json.dumps({"format": form, **without_nan(content)}, indent=1, allow_nan=False) + "\n"
    write_whole(path, text.encode())


def read_document(path: Path, form: str, none: str, again: str) -> dict[str, Any]:
    """The content of a JSON file of the format `form`.

    Raises UserError with the advice `none` if there is no file, with `again` if it is damaged or of another format.
    """
    content = _parsed(_read(path, none), path, again)
    if not isinstance(content, dict) or content.pop("format", None) != form:
        raise UserError(f"{path} is not of format {form}: {again}")
    return content


def read_json(path: Path, none: str, again: str) -> dict[str, Any]:
    """The object in a JSON file; UserError with the advice `none` if there is no file, or `again` if it is damaged."""
    return parse_json(_read(path, none), path, again)


def parse_json(raw: bytes, path: Path, again: str) -> dict[str, Any]:
    """The object in the bytes of a JSON file; UserError with the advice `again` if it is damaged."""
    content = _parsed(raw, path, again)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it must be an object, not {shown(content)}): {again}")
    return content


def _read(path: Path, none: str) -> bytes:
    try:
        return retried(path.read_bytes, path)
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}: {none}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parsed(raw: bytes, path: Path, again: str) -> Any:
    try:
        return load_json(raw)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {again}") from None


def restored(kind: type[Document], content: Mapping[str, Any], path: Path, again: str) -> Document:
    """The dataclass whose `asdict` is the content of a file; UserError with the advice `again` if it is not."""

    def fault(place: Place, text: str) -> UserError:
        return UserError(f"{path} is damaged ({named(place)} {text}): {again}")

    found: Document = structured(kind, content, fault)
    return found


def restored_part(kind: type[Document], content: Mapping[str, Any], path: Path, again: str) -> Document:
    """The same of a dataclass whose `asdict` is a part of the content: every field is needed, others are ignored."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    missing = next((name for name in names if name not in content), None)
    if missing:
        raise UserError(f"{path} has no {missing}: {again}")
    return restored(kind, {name: content[name] for name in names}, path, again)


def without_nan(content: Any) -> Any:
    """JSON's content with None, which it writes as null, for numbers that it has not: nan and infinity."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@dataclass(frozen=True)
class Toml:
    """The content of a TOML file, and its text to find lines in."""

    name: str
    text: str
    content: dict[str, Any]

    def values(self, kind: type, without: Collection[str] = (), hint: str = "") -> dict[str, Any]:
        """The values it has for fields of a dataclass, except those in `without`; UserError with the line of a fault.

        `hint` is the advice for a name that is like none, where a list of all fields would be too long.
        """
        kinds = {key: field for key, field in get_type_hints(kind).items() if key not in without}
        values = {}
        for key, value in self.content.items():
            if key not in kinds:
                raise self.fault(key, (), f"is unknown: {nearest(key, kinds, hint)}")
            values[key] = structured(kinds[key], value, partial(self.fault, key))
        return values

    def fault(self, key: str, place: Place, text: str) -> UserError:
        """The error for a fault in the value of a key, with the line: its own, or that of the table around it."""
        at = 0
        for step in (key, *place):
            begin = rf"""^[^=#\n]*(?<![\w-]){re.escape(str(step))}["']?[ \t]*[\]=.]"""
            found = re.compile(begin, re.MULTILINE).search(self.text, at)
            at = found.start() if found else at
        line = self.text.count("\n", 0, at) + 1
        return UserError(f"{self.name}, line {line}: {named((key, *place))} {text}")


def read_toml(path: Path, name: str = "") -> Toml:
    """A TOML file; errors call it `name`, or else by its path. UserError if it cannot be read."""
    return parse_toml(read_text(path, name), name or str(path))


def parse_toml(text: str, name: str) -> Toml:
    """A TOML text; errors call it `name`. UserError, with the line, if it is not TOML."""
    try:
        return Toml(name, text, load_toml(text))
    except ValueError as error:
        raise UserError(f"{name}: {one_line(error)}") from None


def shipped(directory: Path) -> dict[str, Path]:
    """The TOML files of a directory by their names without suffix, sorted."""
    return {path.stem: path for path in sorted(directory.glob("*.toml"))}


def structured(kind: Any, content: Any, fault: Callable[[Place, str], UserError]) -> Any:
    """`content` as a value of type `kind`; raises what `fault` returns for the place and the text of the first fault.

    Types are strict: a float may be an integer, or null for nan, and a path is text; nothing else is converted.
    """
    from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

    error: BaseException
    try:
        return converter().structure(content, kind)
    except (BaseValidationError, TypeError, OverflowError) as caught:  # an integer may be more than a float can be
        error = caught
    place: list[str | int] = []
    while isinstance(error, BaseValidationError):
        # A misspelt name is both unknown and missing: the first is more useful.
        error = max(error.exceptions, key=lambda inner: isinstance(inner, ForbiddenExtraKeysError))
        for note in getattr(error, "__notes__", ()):
            place.append(note.name if hasattr(note, "name") else note.index)
            kind = note.type
    if isinstance(error, ForbiddenExtraKeysError):
        extra = min(error.extra_fields)
        raise fault([*place, extra], f"is unknown: {nearest(extra, [field.name for field in fields(error.cl)])}")
    if isinstance(error, KeyError):
        raise fault(place, f"is missing: it must be {described(kind)}")
    for step in place:
        content = content[step]
    raise fault(place, f"must be {described(kind)}, not {shown(content)}")


@cache
def converter() -> Converter:
    """What `structured` converts with. Its TypeErrors and KeyErrors come with the place, in cattrs's groups."""
    from cattrs import Converter  # 0.03 s, only where something is read
    from cattrs.cols import homogenous_tuple_structure_factory, is_mapping, mapping_structure_factory
    from cattrs.gen import make_dict_structure_fn
    from cattrs.strategies import configure_union_passthrough

    def exact(value: Any, kind: Any) -> Any:
        if kind is float and (value is None or type(value) is int):
            return math.nan if value is None else float(value)
        if kind is Path and type(value) is str:
            return Path(value)
        if type(value) is not kind:
            raise TypeError
        return value

    def literal(value: Any, kind: Any) -> Any:
        if not any(type(value) is type(known) and value == known for known in get_args(kind)):
            raise TypeError
        return value

    def has_origin(origin: Any, kind: Any) -> bool:
        return get_origin(kind) is origin

    def shaped(shape: Any, make: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """cattrs's own factory, which takes anything to iterate over, for lists or tables alone."""

        def factory(kind: Any, within: Converter) -> Callable[..., Any]:
            build = make(kind, within, **options)
            length = len(get_args(kind)) if has_origin(tuple, kind) and ... not in get_args(kind) else None

            def structure(value: Any, _: Any) -> Any:
                if not isinstance(value, shape) or length not in (None, len(value)):
                    raise TypeError
                return build(value, kind)

            return structure

        return factory

    is_tuple = partial(has_origin, tuple)

    def other(kind: Any) -> Callable[..., Any]:
        """Takes what JSON does not have, such as an array that is given with its content, as it is."""
        return lambda value, _: exact(value, get_origin(kind) or kind)

    found = Converter(structure_fallback_factory=other)
    for kind in (bool, int, float, str, Path):
        found.register_structure_hook(kind, exact)
    configure_union_passthrough(str | int | None, found)
    found.register_structure_hook_func(partial(has_origin, Literal), literal)
    found.register_structure_hook_factory(is_mapping, shaped(dict, mapping_structure_factory))
    found.register_structure_hook_factory(is_tuple, shaped((list, tuple), homogenous_tuple_structure_factory))
    found.register_structure_hook_factory(
        is_dataclass, shaped(dict, make_dict_structure_fn, _cattrs_forbid_extra_keys=True)
    )
    return found


def named(place: Place) -> str:
    """A place as text: resource_types.rt_F.gpus, shards[3].bytes."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".") or "it"


def described(kind: Any) -> str:
    """What a value of type `kind` is, in words."""
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Annotated:
        return described(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(described(choice) for choice in arguments if choice is not NoneType)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        count = "" if arguments[-1] is ... else f" of {len(arguments)}"
        return f"a list in [ ]{count}, each {described(arguments[0])}"
    if kind in (str, Path):
        return "text in quotes"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a table")


def shown(value: Any) -> str:
    """A value as files write it, cut to a line."""
    if isinstance(value, dict):
        return "a table"
    return json.dumps(value) if value is None or isinstance(value, bool) else reprlib.repr(value)
