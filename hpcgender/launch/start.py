"""Where a launch begins: in a job or on a machine without a scheduler it runs the command, elsewhere it submits it."""

from __future__ import annotations

import os

from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch import attempt
from hpcgender.launch.work import chained, find_work
from jobs.schedulers import find_allocation, named
from jobs.sites import find_site
from shard_tools.base.errors import UserError


def launch(config: LaunchConfig) -> int:
    """Runs or submits the command, and returns the exit code. Raises UserError for what can be known beforehand."""
    around = find_allocation(os.environ).scheduler
    outside = not around.has_queue
    site = find_site(config.site, config.scheduler if outside else around.name, os.environ)
    work = find_work(config.command, check=outside and not config.after)
    works = [work, *chained(work, config.following)]
    if outside and named(site.scheduler).has_queue:
        from hpcgender.launch import submit

        return submit.submit_all(config, works, site)
    if config.after and outside:
        raise UserError("--after needs a scheduler: run the commands one after the other with --chain")
    if config.dry_run:
        print(attempt.preview(config, site, os.environ))
        return 0
    return attempt.local_chain(config, works, site) if len(works) > 1 else attempt.run(config, site)
