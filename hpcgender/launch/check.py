"""Asks the scheduler whether what a site profile names is there, and whether a job could ever run."""

from __future__ import annotations

import os
from pathlib import Path

from hpcgender.commands.sites import CheckConfig
from hpcgender.launch.submit import resources
from jobs.scheduler import Request
from jobs.schedulers import named
from jobs.sites import find_site
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural


def check(config: CheckConfig) -> None:
    """Prints what the scheduler says of a job of this size; UserError if it could never run."""
    print(could_run(config))


def could_run(config: CheckConfig) -> str:
    """What the scheduler says of a job of this size, on one line; UserError if it could never run."""
    site = find_site(config.site, config.scheduler, os.environ)
    scheduler = named(site.scheduler)
    if not scheduler.has_queue:
        return f"site {site.name}: {scheduler.title}, nothing to ask for"
    wanted = resources(config, site, gpus=1 if config.gpus_per_node is None else config.gpus_per_node)
    request = Request(name="check", site=site, resources=wanted)
    try:
        verdict = scheduler.check(request, Path.cwd() / SUBMISSIONS / "%j")
    except UserError as error:
        raise UserError(f"site {site.name}: {error}") from None
    asked = f"{wanted.nodes} x {plural(wanted.cpus or 1, 'core')}, {plural(wanted.gpus_per_node, 'GPU')}" + (
        f", {wanted.mem:g} GB" if wanted.mem else ""
    )
    return f"site {site.name}: {scheduler.title} could run {asked}: {verdict}"
