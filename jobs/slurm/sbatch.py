"""What a request asks of sbatch, through submitit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jobs.scheduler import Request
from jobs.stopping import margin
from jobs.submit import UNHEARD, setup, task_command
from shard_tools.base.errors import UserError


def script(request: Request, record: Path) -> str:
    """The text of the job's script. UserError if the request is in itself impossible."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"exec {task_command(request, record)}"
    count = request.tasks if request.tasks > 1 else None
    return str(_make_sbatch_string(command=command, folder=record, map_count=count, **parameters(request)))


def parameters(request: Request) -> dict[str, Any]:
    """The parameters of submitit's executor for Slurm."""
    site, wanted = request.site, request.resources
    log = request.log.replace("%j", "%A_%a") if request.tasks > 1 else request.log
    more: dict[str, Any] = {"output": log, "requeue": True}
    for option in site.options:
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise UserError(f"site {site.name}: give Slurm's options as --name=value, not {option!r}")
        more[name] = value if equals else True
    kinds = {"afterok": request.after, "afterany": request.after_end}
    if before := [":".join((kind, *ids)) for kind, ids in kinds.items() if ids]:
        more |= {"dependency": ",".join(before), "kill-on-invalid-dep": "yes"}
    gpus = ":".join(filter(None, (site.gpu, str(wanted.gpus_per_node))))
    return {
        "job_name": request.name,
        "partition": site.queue or None,
        "account": site.account or None,
        "qos": site.qos or None,
        "time": math.ceil(wanted.time_min) or None,
        "nodes": wanted.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": wanted.cpus or None,
        "gpus_per_node": gpus if wanted.gpus_per_node else None,
        "mem": f"{math.ceil(wanted.mem * 1024)}M" if wanted.mem else None,
        "setup": [UNHEARD, *setup(site)],
        "signal_delay_s": round(margin(60 * wanted.time_min) * 2 / 3),  # Slurm's own, after the launcher's
        "stderr_to_stdout": True,
        "use_srun": False,
        "wckey": None,
        "array_parallelism": request.at_once or request.tasks,
        "additional_parameters": more,
    }
