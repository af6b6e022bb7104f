"""Asks the scheduler whether what a site profile names is there, and whether a job could ever run."""

from __future__ import annotations

from pathlib import Path

from hpcgender.commands.sites import CheckConfig
from hpcgender.launch.start import site_of
from hpcgender.launch.submit import resources
from jobs import preflight
from jobs.submit import NAMES, Request
from shard_tools.base.errors import UserError


def check(config: CheckConfig) -> None:
    """Prints what the scheduler says of a job of this size; UserError if it could never run."""
    site = site_of(config, config.scheduler)
    if site.scheduler == "local":
        print(f"site {site.name}: this machine, nothing to ask for")
        return
    wanted = resources(config, site, gpus=1 if config.gpus_per_node is None else config.gpus_per_node)
    request = Request(name="check", site=site, resources=wanted)
    try:
        said = preflight.check(request, Path.cwd() / "submissions" / "%j")
    except ValueError as error:
        raise UserError(f"site {site.name}: {error}") from None
    asked = f"{wanted.nodes} x {wanted.cpus or 1} cores, {wanted.gpus_per_node} GPUs" + (
        f", {wanted.mem:g} GB" if wanted.mem else ""
    )
    print(f"site {site.name}: {NAMES[site.scheduler]} could run {asked}: {said}")
