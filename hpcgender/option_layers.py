"""Options in layers: defaults, a resumed run, a preset, a TOML file, the command line; in sections in --help and TOML.

There is a section for each class that a dataclass of options inherits its fields from.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import tyro

from hpcgender.data.packs import joined
from shard_tools.base.commands import default_is
from shard_tools.base.documents import Toml, read_toml, shipped
from shard_tools.base.errors import unknown
from shard_tools.base.options import docstrings, expanded, parse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
Layered = TypeVar("Layered", bound="SetupConfig")

PRESETS = Path(__file__).parent / "presets"
WIDTH = 100
"""Characters in a line of a comment in TOML."""


@dataclass(frozen=True, kw_only=True)
class SetupConfig:
    """Sources of the options below. The command line overrides the file, and the file overrides the preset."""

    preset: Annotated[str, default_is("none", "NAME")] = ""
    """Preset to start from: resnet50, resnet101, resnet152, se_resnet50, se_resnet101, se_resnet152, multibranch,
    multibranch_resnet50, multitask_resnet18, transfer_resnet18, utkface_best, utkface_multitask or vgg16."""
    config: Annotated[Path | None, default_is("none", "FILE")] = None
    """TOML file with options, as --print-config prints it. It may name a preset: preset = "vgg16"."""
    print_config: bool = False
    """Print all options as a TOML file and exit."""

    @classmethod
    def from_arguments(cls: type[Layered], program: str, arguments: Sequence[str]) -> Layered:
        """The options that `arguments` and the layers below give; below all, those of a run that is resumed.

        Exits with 0 after --help and --print-config. Raises UserError for a wrong argument, and for a preset or a file
        that cannot be used.
        """
        arguments = joined(arguments)
        layers, _ = parse(SetupConfig, program, arguments, return_unknown_args=True, add_help=False)
        stated = read_layers(cls, expanded(layers))
        options = parse_sections(cls(**stated), program, arguments)
        if begun := expanded(options).begun_with():
            options = parse_sections(cls(**{**begun, **stated}), program, arguments)
        if options.print_config:
            print(options.toml(), end="")
            sys.exit(0)
        return options

    def begun_with(self) -> dict[str, Any]:
        """The options of the run that these resume, by name, as the lowest layer; none if they resume none."""
        return {}

    def toml(self) -> str:
        """All options but where they come from, as a TOML file that `--config` reads."""
        return to_toml(self, without=LAYERS)


LAYERS = frozenset(field.name for field in fields(SetupConfig))
"""The options that say where the others come from; they are no part of what is trained."""


def preset_names() -> list[str]:
    """The presets that there are."""
    return list(shipped(PRESETS))


def read_layers(options: type[SetupConfig], layers: SetupConfig) -> dict[str, Any]:
    """What the preset and the file set, by the names of the fields of `options`; UserError if they cannot be used."""
    stated: dict[str, Any] = {"config": layers.config}
    if layers.config:
        stated |= read_options(options, read_toml(layers.config))
    preset = layers.preset or stated.get("preset", "")
    if preset:
        where = "" if layers.preset else f" in {layers.config}"
        stated = {**read_preset(options, preset, where), **stated, "preset": preset}
    return stated


def read_preset(options: type[SetupConfig], name: str, where: str = "") -> dict[str, Any]:
    """The values of a preset and of the preset that it is based on; UserError, with `where` it is named, if none is."""
    presets = shipped(PRESETS)
    if name not in presets:
        raise unknown(f"preset{where}", name, preset_names())
    stated = read_options(options, read_toml(presets[name], f"preset {name}"))
    base = stated.pop("preset", "")
    return {**read_preset(options, base, f" in preset {name}"), **stated} if base else stated


def read_options(options: type[SetupConfig], toml: Toml) -> dict[str, Any]:
    """The values in a file of options; UserError with the line of what is wrong."""
    return toml.values(options, LAYERS - {"preset"}, "hpcgender train --print-config lists all options")


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


def parse_sections(default: Options, program: str, arguments: Sequence[str]) -> Options:
    """`default` with what the arguments say; --help shows the sections. UserError for a wrong one."""
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
    given: Any = parse(whole, program, arguments, config=(tyro.conf.OmitArgPrefixes,))
    values: dict[str, Any] = {}
    for part in vars(given).values():
        values.update(vars(part))
    return replace(default, **values)


def spelled_out(options: DataclassInstance) -> list[str]:
    """The arguments that alone give these options, without a preset or a file."""
    words: list[str] = []
    for option in fields(options):
        value, flag = getattr(options, option.name), f"--{option.name.replace('_', '-')}"
        if option.name in LAYERS or value == option.default:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


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
