"""Options in sections, a section for each class that they come from: in --help, and as a commented TOML file."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import field, fields, make_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")

WIDTH = 100
"""Of comments in TOML, characters."""


def sections(options: type) -> dict[type, dict[str, str]]:
    """The classes that a dataclass has its fields from, itself first: of each, the fields it adds and their help."""
    left = {option.name for option in fields(options)}
    found = {}
    for cls in options.__mro__:
        own = [name for name in inspect.get_annotations(cls) if name in left]
        if own:
            helps = docstrings(cls)
            found[cls] = {name: helps.get(name, "") for name in own}
            left -= set(own)
    return found


def title(cls: type) -> str:
    """The name of a class's section."""
    return cls.__name__.removesuffix("Config").lower()


def docstrings(cls: type) -> dict[str, str]:
    """The strings below a class's fields, each on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, below in pairwise(tree.body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def parse_sections(default: Options, program: str, arguments: Sequence[str]) -> Options:
    """`default` with what the arguments say; --help shows the sections. Exits with 2 on a wrong argument."""
    import tyro  # 0.15 s that the list of commands need not wait for

    kinds = get_type_hints(type(default), include_extras=True)
    parts = []
    for cls, helps in sections(type(default)).items():
        options = [
            (name, Annotated[kinds[name], tyro.conf.arg(help=text)], field(default=getattr(default, name)))
            for name, text in helps.items()
        ]
        part = make_dataclass(cls.__name__, options, frozen=True, kw_only=True, namespace={"__doc__": cls.__doc__})
        parts.append((title(cls), part, field(default=part())))
    whole = make_dataclass(type(default).__name__, parts, namespace={"__doc__": type(default).__doc__})
    given: Any = tyro.cli(whole, prog=program, args=list(arguments), config=(tyro.conf.OmitArgPrefixes,))
    values: dict[str, Any] = {}
    for part in vars(given).values():
        values.update(vars(part))
    return replace(default, **values)


def to_toml(options: DataclassInstance, without: Collection[str] = ()) -> str:
    """Options as a TOML file with their help as comments; an option that is None is a comment, too."""
    import tomlkit

    document = tomlkit.document()
    for cls, helps in sections(type(options)).items():
        shown = [name for name in helps if name not in without]
        if shown:
            document.add(tomlkit.comment(f"---- {title(cls)}: {cls.__doc__}"))
            document.add(tomlkit.nl())
        for name in shown:
            value = getattr(options, name)
            for line in textwrap.wrap(helps[name], WIDTH):
                document.add(tomlkit.comment(line))
            if value is None:
                document.add(tomlkit.comment(f"{name} is not set"))
            else:
                document.add(name, tomlkit.item(str(value) if isinstance(value, Path) else value))
            document.add(tomlkit.nl())
    return document.as_string()
