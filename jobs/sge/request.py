"""What a request asks of qsub. Not part of the plugin: it knows requests and site profiles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jobs.scheduler import Request
from jobs.sge.script import Parameters, qsub_command, script_text
from jobs.site import Site
from jobs.submit import setup, task_command
from shard_tools.base.errors import UserError


def script(request: Request, record: Path) -> str:
    """The text of the job's script. UserError if the request is in itself impossible."""
    return script_text(Parameters(**parameters(request)), record, task_command(request, record))


def command(request: Request, record: Path, file: str) -> list[str]:
    """The command line that submits the script in `file`. UserError if the request is in itself impossible."""
    try:
        return qsub_command(Parameters(**parameters(request)), record, Path(file))
    except ValueError as error:
        raise UserError(str(error)) from None


def parameters(request: Request) -> dict[str, Any]:
    """The parameters of the executor for Grid Engine."""
    site, wanted = request.site, request.resources
    log = request.log.replace("%j", "$JOB_ID")
    more: dict[str, Any] = {"o": f":{log}"}
    if site.account and site.account_option != "-P":
        more[site.account_option.lstrip("-")] = site.account
    more |= options(site)
    slots = wanted.cpus or 1
    asked: dict[str, Any] = {
        "pe": (site.pe or None) if wanted.nodes > 1 else (site.pe_one_node or None) if slots > 1 else "",
        "cpus_per_task": slots,
        "gpus_per_node": wanted.gpus_per_node,
        "gpu_complex": site.gpu,
        "gpu_per": site.gpu_per,
        "mem_gb": wanted.mem or None,
        "mem_complex": site.memory,
        "mem_per": site.memory_per,
    }
    if site.resource_types:
        kind = site.resource_type(wanted.nodes, wanted.gpus_per_node, wanted.cpus)
        asked = {"pe": "", "complexes": {kind: wanted.nodes}}
    return {
        **asked,
        "name": request.name,
        "nodes": wanted.nodes,
        "timeout_min": math.ceil(wanted.time_min) or 5,
        "time_complex": "h_rt" if wanted.time_min else "",
        "queue": site.queue,
        "project": site.account if site.account_option == "-P" else "",
        "hold_jid": request.after,
        "notify": True,
        "use_qrsh": False,
        "signal_delay_s": 0,  # the launcher has its own watchdog
        "stderr_to_stdout": True,
        # The executor's log is in the record; this one is where people look for it.
        "setup": ['exec >>"$SGE_STDOUT_PATH" 2>&1', *setup(site)],
        "additional_parameters": more,
    }


def options(site: Site) -> dict[str, Any]:
    """A site's further options of qsub by name; those that come twice, as -l may, are joined by commas."""
    found: dict[str, Any] = {}
    name = ""
    for word in site.options:
        if word.startswith("-"):
            name = word.lstrip("-")
            found.setdefault(name, True)
        elif not name:
            raise UserError(f'site {site.name}: give options as ["-l", "os=rocky9"], not beginning with {word!r}')
        else:
            found[name] = word if found[name] is True else f"{found[name]},{word}"
    return found
