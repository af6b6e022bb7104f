"""What a request asks of qsub. Not part of the plugin: it knows requests and site profiles."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.command import answer
from jobs.scheduler import Request
from jobs.sge import qstat
from jobs.sge.script import Parameters, Per, qsub_command, script_text
from jobs.site import Site
from jobs.submit import setup, task_command
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural

_RESIDENT = ("m_mem_free", "tmem", "mem_free")
"""Complexes for memory that is used, the strictest first; every Grid Engine comes with the last."""


def script(request: Request, record: Path) -> str:
    """The text of the job's script. UserError if the request is in itself impossible."""
    array = request.tasks > 1
    return script_text(Parameters(**parameters(request)), record, task_command(request, record), array=array)


def command(request: Request, record: Path, file: str) -> list[str]:
    """The command line that submits the script in `file`. UserError if the request is in itself impossible."""
    try:
        array = request.tasks if request.tasks > 1 else None
        return qsub_command(Parameters(**parameters(request)), record, Path(file), array=array)
    except ValueError as error:
        raise UserError(str(error)) from None


def parameters(request: Request) -> dict[str, Any]:
    """The parameters of the executor for Grid Engine."""
    site, wanted = request.site, request.resources
    log = request.log.replace("%j", "$JOB_ID.$TASK_ID" if request.tasks > 1 else "$JOB_ID")
    more: dict[str, Any] = {"o": f":{log}"}
    if site.account and site.account_option != "-P":
        more[site.account_option.lstrip("-")] = site.account
    more |= options(site)
    given = {resource.partition("=")[0] for resource in str(more.get("l", "")).split(",")}
    if site.gpu in given:  # as of a job that was submitted by hand
        site = replace(site, gpu="")
    slots = wanted.cpus or 1
    if not site.resource_types:
        check_slots(site, wanted.nodes, slots, wanted.gpus_per_node)
    memory, per = (site.memory, site.memory_per) if site.memory or not wanted.mem else resident_memory()
    asked: dict[str, Any] = {
        "pe": (site.pe or None) if wanted.nodes > 1 else (site.pe_one_node or None) if slots > 1 else "",
        "cpus_per_task": slots,
        "gpus_per_node": wanted.gpus_per_node,
        "gpu_complex": site.gpu,
        "gpu_per": site.gpu_per,
        "mem_gb": wanted.mem or None,
        "mem_complex": memory,
        "mem_per": per,
    }
    if site.resource_types:
        asked = {"pe": ""}
        if not given & {*site.resource_types}:
            kind = site.resource_type(wanted.nodes, wanted.gpus_per_node, wanted.cpus)
            asked["complexes"] = {kind: wanted.nodes}
    return {
        **asked,
        "name": request.name,
        "nodes": wanted.nodes,
        "timeout_min": math.ceil(wanted.time_min) or 5,
        "time_complex": "h_rt" if wanted.time_min else "",
        "queue": site.queue,
        "project": site.account if site.account_option == "-P" else "",
        "hold_jid": (*request.after, *request.after_end),
        "array_parallelism": request.at_once,
        "notify": True,
        "use_qrsh": False,
        "signal_delay_s": 0,  # the launcher has its own watchdog
        "stderr_to_stdout": True,
        # The executor's log is in the record; this one is where people look for it.
        "setup": ['exec >>"$SGE_STDOUT_PATH" 2>&1', *setup(site)],
        "additional_parameters": more,
    }


def resident_memory() -> tuple[str, Per]:
    """The complex for memory that processes really use, and what it counts for, where a profile names none.

    Not h_vmem: it limits the address space, of which CUDA and DALI reserve many times what they use.
    """
    rows = _complexes()
    name = next((name for name in _RESIDENT if name in rows and rows[name][4] != "NO"), _RESIDENT[-1])
    return name, "slot" if name in rows and rows[name][5] == "YES" else "host"


def unlike_the_complex(request: Request) -> str:
    """How the site's complex for GPUs counts, where a job so asked for is not granted what it wants; empty if it is.

    One that counts per job is granted on the first host alone, seen on 8.1.9: other jobs get the GPUs of the rest.
    """
    site, wanted = request.site, request.resources
    row = _complexes().get(site.gpu)
    if not row or not wanted.gpus_per_node or site.resource_types:
        return ""
    per = {"YES": "slot", "JOB": "job", "HOST": "host"}.get(row[5], "")
    if per == "job" and wanted.nodes > 1:
        return f"{site.gpu} counts per job (JOB in qconf -sc), so GPUs are reserved on the first host alone"
    meant = "slot" if per == "slot" else "host"
    if per and meant != site.gpu_per and (wanted.cpus or 1) > 1:
        return f'{site.gpu} counts per {per} ({row[5]} in qconf -sc): set gpu_per = "{meant}"'
    return ""


def _complexes() -> dict[str, list[str]]:
    rows = map(str.split, answer(qstat.call, "qconf", "-sc").splitlines())
    return {row[0]: row for row in rows if len(row) > 5}


def check_slots(site: Site, nodes: int, slots: int, gpus: int) -> None:
    """Raises UserError, in the profile's words, unless the site can ask for so many slots and GPUs on each node."""
    key, what = ("pe", "nodes") if nodes > 1 else ("pe_one_node", "slots on one node")
    if nodes * slots > 1 and not getattr(site, key):
        raise UserError(
            f"site {site.name} has no {key}, the parallel environment for several {what}: qconf -spl lists those here"
        )
    if gpus and site.gpu and site.gpu_per == "slot" and gpus % slots:
        raise UserError(
            f"site {site.name}: gpu = {site.gpu!r} counts per slot, and the {slots} slots of a node (--cpus, "
            f"cpus_per_node) cannot share {plural(gpus, 'GPU')}: ask for {plural(gpus, 'slot')}, or set gpu_per if it "
            "counts per host"
        )


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
