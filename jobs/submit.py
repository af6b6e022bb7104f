"""Submitting one task on the first of several hosts, through submitit: what is asked for, and the script's text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.records import Resources
from jobs.sites import Site
from jobs.stopping import margin

NAMES = {"slurm": "Slurm", "sge": "Grid Engine"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One job: its name, what it asks for where, and what must succeed before."""

    name: str
    site: Site
    resources: Resources
    after: tuple[str, ...] = ()
    logs: str = "logs"
    """Directory of its log, from the working directory or absolute."""

    @property
    def log(self) -> str:
        """Where its output goes, with %j for the job's id."""
        return f"{self.logs}/{self.name}.o%j"


def script(request: Request, folder: Path) -> str:
    """The text of the job's script; `folder` is its record, with %j for the job's id. ValueError if it cannot be."""
    command = f"{request.site.launcher_python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    if request.site.scheduler == "slurm":
        from submitit.slurm.slurm import _make_sbatch_string

        return str(_make_sbatch_string(command=command, folder=folder, **slurm_parameters(request)))
    from jobs.sge.script import Parameters, script_text

    return script_text(Parameters(**sge_parameters(request)), folder, command)


def submit_command(request: Request, folder: Path, file: Path) -> list[str]:
    """The command line that submits the script in `file`. ValueError if the request is in itself impossible."""
    if request.site.scheduler == "slurm":
        return ["sbatch", str(file)]
    from jobs.sge.script import Parameters, qsub_command

    return qsub_command(Parameters(**sge_parameters(request)), folder, file)


def slurm_parameters(request: Request) -> dict[str, Any]:
    """What submitit's executor for Slurm is told."""
    site, wanted = request.site, request.resources
    more: dict[str, Any] = {"output": request.log, "requeue": True}
    for option in site.options:
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise ValueError(f"site {site.name}: give Slurm's options as --name=value, not {option!r}")
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
        "setup": _setup(site),
        "signal_delay_s": round(margin(60 * wanted.time_min) * 2 / 3),  # Slurm's own, after the launcher's
        "stderr_to_stdout": True,
        "use_srun": False,
        "wckey": None,
        "additional_parameters": more,
    }


def sge_parameters(request: Request) -> dict[str, Any]:
    """What the executor for Grid Engine is told."""
    site, wanted = request.site, request.resources
    log = request.log.replace("%j", "$JOB_ID")
    more: dict[str, Any] = {"o": f":{log}"}
    if site.account and site.account_option != "-P":
        more[site.account_option.lstrip("-")] = site.account
    more |= sge_options(site)
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
        "setup": ['exec >>"$SGE_STDOUT_PATH" 2>&1', *_setup(site)],
        "additional_parameters": more,
    }


def sge_options(site: Site) -> dict[str, Any]:
    """A site's further options of qsub by name; those that come twice, as -l may, are joined by commas."""
    options: dict[str, Any] = {}
    name = ""
    for word in site.options:
        if word.startswith("-"):
            name = word.lstrip("-")
            options.setdefault(name, True)
        elif not name:
            raise ValueError(f'site {site.name}: give options as ["-l", "os=rocky9"], not beginning with {word!r}')
        else:
            options[name] = word if options[name] is True else f"{options[name]},{word}"
    return options


def submit(request: Request, folder: Path, task: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Path]:
    """Submits `task(*arguments)` and returns the job's id and the file of its script, in `folder`.

    ValueError, on one line, if the scheduler does not take it.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    Path(request.logs).mkdir(parents=True, exist_ok=True)  # Grid Engine would not make it
    scheduler, python = request.site.scheduler, request.site.launcher_python
    executor: Any
    if scheduler == "slurm":
        executor = submitit.SlurmExecutor(folder, python=python)
        executor.update_parameters(**slurm_parameters(request))
    else:
        from jobs.sge import SgeExecutor

        executor = SgeExecutor(folder, python=python)
        executor.update_parameters(**sge_parameters(request))
    try:
        job = executor.submit(task, *arguments)
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"{NAMES[scheduler]} did not take the job: {' '.join(str(error).split())}") from None
    finally:
        for leftover in folder.parent.glob(".submission_file_*.sh"):
            leftover.unlink(missing_ok=True)
    return str(job.job_id), Path(job.paths.submission_file)


def _setup(site: Site) -> list[str]:
    return ["export SUBMITIT_LOG_LEVEL=CRITICAL", *site.setup()]  # the log is for the command's own lines
