"""Where a launch begins: in a job or on a machine without a scheduler it runs the command, elsewhere it submits it."""

from __future__ import annotations

import os

from hpcgender.commands.launch import JobConfig, LaunchConfig
from hpcgender.launch import attempt
from hpcgender.launch.plan import granted
from hpcgender.launch.work import chained, find_work
from jobs.allocation import Scheduler
from jobs.sites import Site, find_site
from shard_tools.base.errors import UserError


def launch(config: LaunchConfig) -> int:
    """Runs or submits the command, and returns the exit code. Raises UserError for what can be known beforehand."""
    around: Scheduler = granted(os.environ).scheduler
    site = site_of(config, config.scheduler if around == "local" else around)
    work = find_work(config.command, check=around == "local" and not config.after)
    works = [work, *chained(work, config.following)]
    if around == "local" and site.scheduler != "local":
        from hpcgender.launch import submit

        return submit.submit_all(config, works, site)
    if config.after and around == "local":
        raise UserError("--after needs a scheduler: run the commands one after the other with --chain")
    if config.dry_run:
        print(attempt.preview(config, site, os.environ))
        return 0
    return attempt.local_chain(config, works, site) if len(works) > 1 else attempt.run(config, site)


def site_of(config: JobConfig, scheduler: str) -> Site:
    """The site's profile; UserError if it cannot be used."""
    try:
        return find_site(config.site, scheduler, os.environ)
    except ValueError as error:
        raise UserError(str(error)) from error
