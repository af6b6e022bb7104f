"""Options from a command line: tyro parses them, a wrong one is answered with one line, ~ is a home directory."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from shard_tools.base.errors import BAD_INPUT, UserError, nearest

Options = TypeVar("Options")

_KINDS = {"INT": "a whole number", "FLOAT": "a number"}
_WIDE = "100000"  # columns of a terminal on which tyro folds no line


def parse(kind: Any, program: str, argv: Sequence[str], **settings: Any) -> Any:
    """What `tyro.cli` returns for a dataclass. Raises UserError for a wrong argument; exits with 0 after --help."""
    import tyro  # 0.15 s that other modules need not wait for

    _check_paths(kind, argv)

    def parsed() -> Any:
        return tyro.cli(kind, prog=program, args=list(argv), **settings)

    answer = io.StringIO()
    try:
        with redirect_stderr(answer):
            found = parsed()
    except SystemExit as end:
        if end.code != BAD_INPUT:
            raise
    else:
        print(answer.getvalue(), end="", file=sys.stderr)
        return found
    box = io.StringIO()
    with redirect_stderr(box), _terminal_of(_WIDE):  # once more, for an answer whose lines are whole
        try:
            return parsed()
        except SystemExit:
            pass
    raise complaint(box.getvalue(), kind, program)


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


def help_in_lines(kind: type) -> None:
    """Makes --help fold the strings below a dataclass's fields as the terminal is wide, not as the source is."""
    for cls in filter(is_dataclass, kind.__mro__):
        words = docstrings(cls)
        for option in fields(cls):
            if option.name in words:
                option.metadata = MappingProxyType({**option.metadata, "help": words[option.name]})


def _check_paths(kind: Any, argv: Sequence[str]) -> None:
    """Raises UserError for an empty path, as of a shell's variable that is not set: it would be the directory here."""
    option = before = ""
    for word in argv:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        option = name or option
        if not value and (equals or not name) and (not option or option.replace("_", "-") in option_names(kind, Path)):
            what = option if option and (equals or before == option) else "an argument"
            raise UserError(f"{what} is empty: give a path, or . for the current directory")
        before = word


@contextmanager
def _terminal_of(columns: str) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def complaint(box: str, kind: Any, program: str) -> UserError:
    """The error for what tyro prints in a box: sections between rules, in each a title and, indented, arguments."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)  # its frame and rules are of other characters where there is no UTF-8
    rows = "\n".join(line.rstrip(" │")[2:] for line in text.splitlines()[1:] if not line.startswith("╰"))
    sections = [part.strip("\n") for part in re.split(r"^(?:─+|-+)$", rows, flags=re.MULTILINE) if part.strip()] or [""]
    listed = f"{program} --help lists all options"
    for section in sections:
        if found := re.match(r"Unrecognized options:\s*(.*)", section):
            return _unexpected(found[1].split(", "), kind, listed)
    first = sections[0]
    if first.startswith("Missing from"):
        needed = re.findall(r"^ {4}(\S.*)$", first, re.MULTILINE)
        return UserError(f"{program.partition(' ')[2] or program} needs {' and '.join(needed)}: {listed}")
    if found := re.match(r"Error parsing (\S+): (.*)", first):
        return UserError(f"{found[1]}: {_cannot_read(found[2], sections, listed)}")
    if found := re.match(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*?),?\)", first):
        choices = re.findall(r"'([^']*)'", found[3])
        return UserError(f"{found[2]} {found[1]}: {nearest(found[1], choices)}")
    if found := re.match(r"Missing value for argument '(\S+)'", first):
        return UserError(f"{found[1]} needs a value: {listed}")
    return UserError(f"{program}: {' '.join(first.split()) or 'a wrong argument'}: {listed}")


def _unexpected(words: Sequence[str], kind: Any, listed: str) -> UserError:
    option = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
    if option:
        return UserError(f"unknown option {option}: {nearest(option.replace('_', '-'), option_names(kind), listed)}")
    import tyro

    several = any(
        tyro.conf.Positional in getattr(hint, "__metadata__", ()) and get_origin(get_args(hint)[0]) is tuple
        for hint in get_type_hints(kind, include_extras=True).values()
    )
    advice = "give all arguments without an option side by side" if several else listed
    return UserError(f"unexpected argument {words[0]!r}: {advice}")


def _cannot_read(message: str, sections: Sequence[str], listed: str) -> str:
    given = re.search(r"\['.*?'\]|'.*'", message)
    help_text = next((section for section in sections if section.startswith("Argument helptext")), "")
    value = re.search(r"^ +-\S+ (\S.*)$", help_text, re.MULTILINE)
    if not given or not value:
        return f"{message}: {listed}"
    return f"cannot read {given[0]}: give {_KINDS.get(value[1], value[1])}"


def option_names(kind: Any, of: type | None = None) -> list[str]:
    """The options that the fields of a dataclass, and of those within it, become; without positional arguments.

    Those alone that hold something `of` a type, if that is given.
    """
    import tyro

    hints = get_type_hints(kind, include_extras=True)
    found: list[str] = []
    for field in fields(kind):
        inner = hints[field.name]
        if is_dataclass(inner):
            found += option_names(inner, of)
        elif of and not _holds(inner, of):
            continue
        elif not {tyro.conf.Positional, tyro.conf.Fixed} & set(getattr(inner, "__metadata__", ())):
            found.append(f"--{field.name.replace('_', '-')}")
    return found


def _holds(hint: Any, kind: type) -> bool:
    return hint is kind or any(_holds(part, kind) for part in get_args(hint))


def expanded(options: Options) -> Options:
    """Options whose paths that begin with ~ are below a home directory, as a shell has it that sees no quotes."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}  # type: ignore[arg-type]
    changed = {name: path for name, value in values.items() if (path := expand(value)) != value}
    return replace(options, **changed) if changed else options  # type: ignore[type-var]


def expand(value: Any) -> Any:
    """A path, or a text that begins with ~/, below a home directory; a tuple of them; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(expand, value))
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("~/")):
        return type(value)(os.path.expanduser(value))  # noqa: PTH111  # which leaves ~x where there is no user x
    return value
