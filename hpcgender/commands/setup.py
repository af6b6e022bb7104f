"""Options in layers: a class's defaults, then a preset, then a TOML file, then the command line."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from hpcgender.commands.sections import parse_sections, to_toml
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError, one_line, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = files("hpcgender") / "presets"

Options = TypeVar("Options", bound="SetupConfig")


@dataclass(frozen=True, kw_only=True)
class SetupConfig:
    """Sources of the options below. The command line overrides the file, and the file overrides the preset."""

    preset: Annotated[str, default_is("none", "NAME")] = ""
    """Preset to start from: resnet50, resnet101, resnet152, se_resnet50, se_resnet101, se_resnet152, transfer_resnet18,
    utkface_multitask or vgg16."""
    config: Annotated[Path | None, default_is("none", "FILE")] = None
    """TOML file with options, as --print-config prints it. It may name a preset: preset = "vgg16"."""
    print_config: bool = False
    """Print all options as a TOML file and exit."""

    @classmethod
    def from_arguments(cls: type[Options], program: str, arguments: Sequence[str]) -> Options:
        """The options that `arguments` and the layers below give.

        Exits with 2 on a wrong argument, with 0 after --help and --print-config. Raises UserError for a preset or a
        file that cannot be used.
        """
        layers, _ = tyro.cli(SetupConfig, prog=program, args=list(arguments), return_unknown_args=True, add_help=False)
        options = parse_sections(cls(**read_layers(cls, layers)), program, arguments)
        if options.print_config:
            print(options.toml(), end="")
            sys.exit(0)
        return options

    def toml(self) -> str:
        """All options but where they come from, as a TOML file that `--config` reads."""
        return to_toml(self, without=LAYERS)


LAYERS = frozenset(field.name for field in fields(SetupConfig))
"""The options that say where the others come from; they are no part of what is trained."""


def preset_names() -> list[str]:
    """The presets that there are."""
    return sorted(path.name.removesuffix(".toml") for path in PRESETS.iterdir() if path.name.endswith(".toml"))


def read_layers(options: type[SetupConfig], layers: SetupConfig) -> dict[str, Any]:
    """What the preset and the file say, by the names of the fields of `options`; UserError if they cannot be used."""
    stated = {}
    preset = layers.preset
    if layers.config:
        try:
            text = layers.config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the options in {layers.config}: {one_line(error)}") from None
        stated = read_toml(options, str(layers.config), text)
        preset = preset or stated.pop("preset", "")
        stated["config"] = layers.config
    if preset:
        where = "" if layers.preset else f" in {layers.config}"
        stated = {**read_preset(options, preset, where), **stated, "preset": preset}
    return stated


def read_preset(options: type[SetupConfig], name: str, where: str = "") -> dict[str, Any]:
    """The values of a preset and of the preset that it is based on; UserError, which says `where`, if there is none."""
    if name not in preset_names():
        raise unknown(f"preset{where}", name, preset_names())
    stated = read_toml(options, f"preset {name}", (PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    base = stated.pop("preset", "")
    return {**read_preset(options, base, f" in preset {name}"), **stated} if base else stated


def read_toml(options: type[SetupConfig], name: str, text: str) -> dict[str, Any]:
    """The values in a TOML text, as their fields have them; UserError with the line of what is wrong in `name`."""
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name}: {error}") from None
    kinds = {key: kind for key, kind in get_type_hints(options).items() if key not in LAYERS - {"preset"}}
    values = {}
    for key, value in stated.items():
        place = f"{name}, line {line_of(key, text)}"
        if isinstance(value, dict):
            raise UserError(f"{place}: [{key}] is a table: write options as key = value, without tables")
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else "hpcgender train --print-config lists all there are"
            raise UserError(f"{place}: there is no option {key!r}: {hint}")
        try:
            values[key] = fitted(value, kinds[key])
        except TypeError:
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            raise UserError(f"{place}: {key} must be {described(kinds[key])}, not {shown}") from None
    return values


def line_of(key: str, text: str) -> int:
    """The line, counted from 1, that a key or table at the top of a TOML text is on."""
    begin = re.search(rf"""^[ \t]*\[?[ \t]*["']?{re.escape(key)}["']?[ \t]*[\]=.]""", text, re.MULTILINE)
    return text.count("\n", 0, begin.start() if begin else 0) + 1


def fitted(value: Any, kind: Any) -> Any:
    """A TOML value as an option of type `kind` has it; TypeError if it does not fit."""
    if get_origin(kind) in (Union, UnionType):
        for choice in get_args(kind):
            with suppress(TypeError):
                return fitted(value, choice)
    elif get_origin(kind) is Literal:
        for choice in get_args(kind):
            if type(value) is type(choice) and value == choice:
                return value
    elif get_origin(kind) is tuple and isinstance(value, list):
        inner, *others = get_args(kind)
        if others == [...]:
            return tuple(fitted(element, inner) for element in value)
    elif kind is float and type(value) is int:
        return float(value)
    elif kind is Path and type(value) is str:
        return Path(value)
    elif type(value) is kind:
        return value
    raise TypeError


def described(kind: Any) -> str:
    """What a value of type `kind` is, in words."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(described(choice) for choice in get_args(kind) if choice is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list in [ ], each {described(get_args(kind)[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(kind, 'text in quotes ""')
