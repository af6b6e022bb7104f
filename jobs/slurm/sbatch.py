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
    return str(_make_sbatch_string(command=command, folder=record, **parameters(request)))


def parameters(request: Request) -> dict[str, Any]:
    """The parameters of submitit's executor for Slurm."""
    site, wanted = request.site, request.resources
    more: dict[str, Any] = {"output": request.log, "requeue": True}
    for option in site.options:
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise UserError(f"site {site.name}: give Slurm's options as --name=value, not {option!r}")
        more[name] = value if equals else True
    if request.after:
        more |= {"dependency": f"afterok:{':'.join(request.after)}", "kill-on-invalid-dep": "yes"}
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
        "additional_parameters": more,
    }
