"""Site profiles: what a cluster calls its queues, parallel environments, GPUs and memory, read from TOML files."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jobs.schedulers import SCHEDULERS, find_scheduler, named
from jobs.site import ResourceType, Site
from shard_tools.base.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def site_names() -> list[str]:
    """The profiles that come with this package."""
    names = (path.name for path in files("jobs.sites").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_site(name: str) -> Site:
    """The profile in a file, or the shipped one of that name. UserError, with one line, if it cannot be used."""
    path = Path(name)
    try:
        if path.is_file():
            return replace(parse_site(path.stem, str(path), path.read_text()), file=str(path.absolute()))
        if name in site_names():
            return parse_site(name, f"site {name}", (files("jobs.sites") / f"{name}.toml").read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the site profile {name}: {error}") from None
    raise UserError(f"no site profile {name!r}: give a TOML file, or one of {', '.join(site_names())}")


def parse_site(name: str, where: str, text: str) -> Site:
    """A profile from its TOML text; UserError, which begins with `where`, if something is wrong."""
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: {error}") from None
    known = {item.name: item for item in fields(Site) if item.name not in ("name", "file")}
    for key, value in stated.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{where}: there is no setting {key!r}: {hint}")
        _check(where, key, value, str(known[key].type))
    if "scheduler" not in stated:
        raise UserError(f"{where}: scheduler is missing: {_either(tuple(SCHEDULERS))}")
    types = {}
    names = [item.name for item in fields(ResourceType)]
    for kind, content in stated.pop("resource_types", {}).items():
        if not content.keys() <= set(names):
            raise UserError(f"{where}: resource_types.{kind} may have {', '.join(names)}, not {', '.join(content)}")
        types[kind] = ResourceType(**content)
    lists = {key: tuple(value) for key, value in stated.items() if isinstance(value, list)}
    return Site(**{**stated, **lists}, name=name, resource_types=types)


def _check(where: str, key: str, value: Any, kind: str) -> None:
    choices = {"scheduler": tuple(SCHEDULERS), "gpu_per": ("host", "slot"), "memory_per": ("host", "slot")}
    if key in choices:
        if value not in choices[key]:
            raise UserError(f"{where}: {key} is {value!r}: give {_either(choices[key])}")
        return
    fits = {
        "str": isinstance(value, str),
        "int": type(value) is int,
        "float": type(value) in (int, float),
        "tuple[str, ...]": isinstance(value, list) and all(isinstance(item, str) for item in value),
        "Mapping[str, ResourceType]": isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()),
    }
    if not fits[kind]:
        words = {"str": "text", "int": "a whole number", "float": "a number", "tuple[str, ...]": "a list of texts"}
        raise UserError(f"{where}: {key} is {value!r}: it must be {words.get(kind, 'tables')}")


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def find_site(name: str, scheduler: str, environ: Mapping[str, str]) -> Site:
    """The site to use: `name`, or HPCGENDER_SITE, or site.toml here, or the generic profile of the scheduler.

    `scheduler` is a scheduler's name, or auto: the site's, or else the one that this machine can submit to. UserError
    if that is ambiguous or contradicts the site.
    """
    name = name or environ.get("HPCGENDER_SITE", "") or ("site.toml" if Path("site.toml").is_file() else "")
    if not name:  # the generic profile of a scheduler has its name
        return read_site(find_scheduler(environ).name if scheduler == "auto" else scheduler)
    site = read_site(name)
    if scheduler not in ("auto", site.scheduler):
        if not named(scheduler).has_queue:  # run on this machine although it belongs to a site
            return read_site(scheduler)
        raise UserError(f"site {site.name} has {site.scheduler}, not --scheduler {scheduler}: leave one of them out")
    return site
