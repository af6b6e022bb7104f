"""Site profiles: what a cluster calls its queues, parallel environments, GPUs and memory, read from TOML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jobs.schedulers import SCHEDULERS, find_scheduler, named
from jobs.site import OTHER_NAMES, Site
from shard_tools.base.documents import Toml, read_toml, restored, shipped
from shard_tools.base.errors import UserError
from shard_tools.base.options import expand, expanded

PROFILES = Path(__file__).parent


def site_names() -> list[str]:
    """The profiles that come with this package."""
    return list(shipped(PROFILES))


def read_site(name: str) -> Site:
    """The profile in a file, or the shipped one of that name. UserError, with one line, if it cannot be used."""
    path = expand(Path(name))
    if path.is_file():
        return replace(parse_site(path.stem, read_toml(path)), file=str(path.absolute()))
    if name in site_names():
        return parse_site(name, read_toml(shipped(PROFILES)[name], f"site {name}"))
    raise UserError(f"no site profile {name!r}: give a TOML file, or one of {', '.join(site_names())}")


def parse_site(name: str, toml: Toml) -> Site:
    """The profile `name` in a TOML file; UserError with the line of what is wrong."""
    for key in toml.content:
        if key in OTHER_NAMES and OTHER_NAMES[key] not in toml.content:
            raise toml.fault(key, (), f"is unknown: did you mean {OTHER_NAMES[key]}?")
    values = toml.values(Site, without=("name", "file"))
    choices = " or ".join(map(repr, SCHEDULERS))
    if "scheduler" not in values:
        raise UserError(f"{toml.name}: scheduler is missing: it must be {choices}")
    if values["scheduler"] not in SCHEDULERS:
        raise toml.fault("scheduler", (), f"must be {choices}, not {values['scheduler']!r}")
    return expanded(Site(**values, name=name))


def stored_site(settings: Mapping[str, Any], where: Path) -> Site:
    """The profile that `Site.plain` has stored in a file; UserError if it is none."""
    # What a later version added is no reason to refuse it.
    known = {field.name: settings[field.name] for field in fields(Site) if field.name in settings}
    return restored(Site, known, where, "submit the job again")


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
