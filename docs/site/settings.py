"""Reference pages of the files that commands read, made of the dataclasses that hold them and of the files shipped."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from docs.site.help import cell, code
from hpcgender.data.augmentation import LIMITS, PRESETS, Augmentation
from hpcgender.option_layers import PRESETS as PRESET_FILES
from jobs.site import ResourceType, Site
from jobs.sites import PROFILES
from shard_tools import sources
from shard_tools.base.documents import shipped
from shard_tools.base.options import docstrings


def shown_type(option: Field[Any]) -> str:
    """The type of a field in the words of TOML."""
    kind = str(option.type)
    if kind.startswith("Literal["):
        return " or ".join(kind[8:-1].replace('"', "").split(", "))
    if kind.startswith("tuple[float, float]"):
        return "[least, most]"
    words = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
        "tuple[str, ...]": "list",
    }
    return words.get(kind, "table")


def shown_default(option: Field[Any]) -> str:
    """The default of a field; empty if it has none or is empty."""
    if option.default is MISSING or option.default in ("", ()):
        return ""
    return str(list(option.default) if isinstance(option.default, tuple) else option.default)


def table(kind: type, without: tuple[str, ...] = ()) -> list[str]:
    """A row for each field of a dataclass. A field without words of its own shares those of the one before."""
    helps, words = docstrings(kind), ""
    rows = ["| setting | type | what it is | default |", "|---|---|---|---|"]
    for option in fields(kind):
        if option.name not in without:
            words = helps.get(option.name, words)
            rows.append(f"| `{option.name}` | {shown_type(option)} | {cell(words)} | {code(shown_default(option))} |")
    return [*rows, ""]


def files(directory: Path) -> list[str]:
    """The TOML files of a directory, each with its text."""
    lines = []
    for name, path in shipped(directory).items():
        lines += [f"### {name}", "", "```toml", path.read_text(encoding="utf-8").rstrip(), "```", ""]
    return lines


def site_page() -> str:
    """The settings of a site profile, and the profiles that come with the package."""
    return "\n".join(
        [
            "# Site profile",
            "",
            "A site profile is a TOML file. It says what your cluster calls its queues, GPUs and memory. Copy one of",
            "those below to `site.toml` in the project's directory, fill it in, and check it:",
            "",
            "```bash",
            "hpcgender sites check --site site.toml --nodes 2",
            "```",
            "",
            "`--site FILE|NAME` or `HPCGENDER_SITE` name another one. What you leave out is not asked for.",
            "",
            "## Settings",
            "",
            *table(Site, without=("name", "file")),
            'A resource type, as in `[resource_types."rt_F"]`, has',
            "",
            *table(ResourceType),
            "## Profiles that come with the package",
            "",
            *files(PROFILES),
        ]
    )


def augmentation_page() -> str:
    """The settings of an augmentation file, with their limits, and the presets."""
    names = [option.name for option in fields(Augmentation)]
    presets = [f"| `{name}` | " + " | ".join(f"{value(PRESETS[p], name)}" for p in PRESETS) + " |" for name in names]
    return "\n".join(
        [
            "# Augmentation",
            "",
            "`hpcgender train --augment` takes the name of a preset, or a TOML file with these settings. A file may",
            'begin with a preset, as in `preset = "light"`, and change some of it.',
            "",
            "## Settings",
            "",
            *table(Augmentation),
            "## Presets and limits",
            "",
            "| setting | " + " | ".join(PRESETS) + " | limits |",
            "|---|" + "---|" * (len(PRESETS) + 1),
            *(f"{row[:-1]}| {limits(name)} |" for name, row in zip(names, presets, strict=True)),
            "",
        ]
    )


def value(augmentation: Augmentation, name: str) -> str:
    """A setting of a preset."""
    found = getattr(augmentation, name)
    return " to ".join(f"{end:g}" for end in found) if isinstance(found, tuple) else f"{found:g}"


def limits(name: str) -> str:
    """From which number to which a setting may go."""
    low, high = LIMITS[name]
    return f"{low:g} to {high:g}"


def presets_page() -> str:
    """The presets of a training, as the files that they are."""
    return "\n".join(
        [
            "# Presets of a training",
            "",
            "`hpcgender train --preset NAME` begins with the options of a preset. Options on the command line override",
            "them. To see all options of one, as a file that `--config` takes:",
            "",
            "```bash",
            "hpcgender train --preset vgg16 --print-config",
            "```",
            "",
            *files(PRESET_FILES),
        ]
    )


def mappings_page() -> str:
    """The mappings of tables, as the files that they are."""
    return "\n".join(
        [
            "# Mappings of tables",
            "",
            "`shard-tools pack table --mapping NAME` reads the tables of a data set whose columns it knows. Your own",
            "table needs a TOML file like one of these, or the same settings as options.",
            "",
            *files(Path(sources.__file__).parent / "mappings"),
        ]
    )
