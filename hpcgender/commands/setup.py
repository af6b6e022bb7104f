"""Options in layers: a class's defaults, then a preset, then a TOML file, then the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from hpcgender.commands.sections import parse_sections, to_toml
from shard_tools.base.commands import default_is
from shard_tools.base.documents import Toml, read_toml, shipped
from shard_tools.base.errors import unknown

PRESETS = Path(__file__).parents[1] / "presets"

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
