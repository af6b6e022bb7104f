"""What a job asks of Grid Engine: the parameters, the command line of qsub and the text of the job script."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from submitit.core.utils import JobPaths

Per = Literal["host", "slot"]

_EXPANDED = re.compile(r"\$(HOME|USER|JOB_ID|JOB_NAME|HOSTNAME|TASK_ID)|\n")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What can be set through `update_parameters`: submitit's generic names, and Grid Engine's own as `sge_<name>`."""

    name: str = "submitit"
    timeout_min: int = 5
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem_gb: float | None = None
    """GiB of memory per node."""

    stderr_to_stdout: bool = False

    # How these are asked for, which is every site's own
    pe: str | None = None
    """Parallel environment (`qconf -spl`); `{slots_per_node}` and `{nodes}` in it are filled in, as in `mpi-16`.
    Needed for more than one slot; "" asks for none where complexes alone say what is granted."""

    slots_per_node: int | None = None
    """Default: one per cpu, tasks_per_node x cpus_per_task."""

    gpu_complex: str = "gpu"
    gpu_per: Per = "host"
    mem_complex: str = "mem_free"
    mem_per: Per = "host"
    """What one unit of the complex is granted for (`consumable` of `qconf -sc`: YES is per slot). A complex "" is not
    asked for."""

    time_complex: str = "h_rt"
    """The limit of the running time; "" asks for none."""

    # Grid Engine's own
    queue: str = ""
    project: str = ""
    account: str = ""
    priority: int | None = None
    complexes: Mapping[str, Any] = field(default_factory=dict)
    """More requests of `-l`."""

    hold_jid: str | int | Sequence[str | int] = ()
    """Ids of jobs that end first, well or not."""

    array_parallelism: int = 0
    """How many tasks of an array run at once; 0 is any."""

    rerun: bool = True
    """Whether the job runs again after its host was lost."""

    notify: bool = False
    """Whether signals come before the job is stopped (USR1) or killed (USR2)."""

    export_env: bool = True
    """Whether the job has the environment of the submission."""

    additional_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Any other option of qsub by name, as {"m": "be", "M": "me@uni.edu"}; True for one without a value."""

    # How the job runs
    use_qrsh: bool = True
    """False starts one task, on the first host only, and leaves starting anything elsewhere to it."""

    signal_delay_s: int = 90
    """How long before the limit the function is asked to checkpoint, at most half the time; 0 never asks."""

    setup: Sequence[str] = ()
    teardown: Sequence[str] = ()
    """Lines of bash before and after; those after run also when the function failed."""

    @classmethod
    def names(cls) -> set[str]:
        return {parameter.name for parameter in fields(cls)}

    @property
    def slots(self) -> int:
        """Slots on each node."""
        return self.slots_per_node or self.tasks_per_node * self.cpus_per_task

    @property
    def tasks(self) -> int:
        """Tasks on all nodes."""
        return self.nodes * self.tasks_per_node if self.use_qrsh else 1

    @property
    def stop_after_s(self) -> int | None:
        """Seconds from the job's start after which it is asked to checkpoint."""
        if not self.signal_delay_s:
            return None
        return self.timeout_min * 60 - min(self.signal_delay_s, self.timeout_min * 30)


def qsub_command(parameters: Parameters, folder: Path, script: Path, *, array: int | None = None) -> list[str]:
    """The command that submits `script`, as an array of `array` tasks if that is given.

    All options are on the command line, which takes any character; `#$` lines have quoting of their own. Raises
    ValueError, with one line for a person, if the parameters do not go together.
    """
    p = parameters
    # An empty prefix: qsub looks for no options in the script, which may contain other people's lines.
    command = ["qsub", "-terse", "-C", "", "-cwd", "-S", "/bin/bash", "-N", job_name(p.name)]
    command += ["-V"] if p.export_env else []
    command += ["-r", "y" if p.rerun else "n"]
    command += _log_options(p, folder, array is not None)
    command += _slot_options(p)
    requests = ",".join(f"{key}={value}" for key, value in _requests(p).items())
    command += ["-l", requests] if requests else []
    for option, value in (("-q", p.queue), ("-P", p.project), ("-A", p.account), ("-hold_jid", _ids(p.hold_jid))):
        command += [option, value] if value else []
    command += [] if p.priority is None else ["-p", str(p.priority)]
    command += ["-notify"] if p.notify else []
    if array is not None:
        command += ["-t", f"1-{array}"] + (["-tc", str(p.array_parallelism)] if p.array_parallelism else [])
    for option, value in p.additional_parameters.items():
        command += [f"-{option}"] if value is True else [f"-{option}", str(value)]
    return [*command, str(script)]


def script_text(parameters: Parameters, folder: Path, command: str, *, array: bool = False) -> str:
    """The job script that runs `command`, a line of bash, once for each task."""
    p = parameters
    lines = ["#!/bin/bash", ""]
    if _has_id(folder):
        # Grid Engine would need the directory to be there before there is an id.
        paths = _in_bash(JobPaths(folder, job_id="%A_%a" if array else "%A"))
        lines += [f'mkdir -p "{paths[0].rpartition("/")[0]}"']
        lines += [f'exec >>"{paths[0]}" ' + ("2>&1" if p.stderr_to_stdout else f'2>>"{paths[1]}"'), ""]
    lines += [
        "# With -notify the whole job is signalled: the function hears it once it listens, this script ignores it.",
        "trap '' USR1 USR2",
    ]
    lines += ["export SUBMITIT_EXECUTOR=sge"]
    if p.stop_after_s is not None:
        lines += [f"export SUBMITIT_SGE_STOP_AT=$(($(date +%s) + {p.stop_after_s}))"]
    if p.setup:
        lines += ["", "# setup", *p.setup]
    if p.tasks > 1:
        starter = [sys.executable, "-u", "-m", f"{__package__}.tasks", str(folder)]
        starter += ["--nodes", str(p.nodes), "--tasks-per-node", str(p.tasks_per_node)]
        starter += ["--stderr-to-stdout"] if p.stderr_to_stdout else []
        starter += [] if p.rerun else ["--no-rerun"]
        command = f"{shlex.join(starter)} -- {shlex.quote(command)}"
    lines += ["", "# command", command, "code=$?"]
    if p.teardown:
        lines += ["", "# teardown", *p.teardown]
    return "\n".join([*lines, "", 'exit "$code"  # 99: Grid Engine runs the job again', ""])


def job_name(name: str) -> str:
    """A name that every Grid Engine takes: letters, digits and `_+.-`, not first a digit, and none of its keywords."""
    clean = re.sub(r"[^A-Za-z0-9_+.-]+", "_", name).strip("_")[:100] or "job"
    if not clean[0].isalpha():
        clean = f"j{clean}"
    return f"{clean}_" if clean.upper() in ("NONE", "ALL", "TEMPLATE") else clean


def _log_options(p: Parameters, folder: Path, array: bool) -> list[str]:
    if _EXPANDED.search(str(Path.cwd())):
        raise ValueError(f"Grid Engine fills in $-names in paths: submit from another directory than {Path.cwd()}")
    if _has_id(folder):
        return ["-o", "/dev/null", "-j", "y"]
    if found := _EXPANDED.search(str(folder)):
        raise ValueError(f"Grid Engine fills in {found[0]!r} in paths: choose another folder than {folder}")
    paths = JobPaths(folder, job_id="$JOB_ID_$TASK_ID" if array else "$JOB_ID")
    # The colon: what goes before it is a host, so that the path itself may hold one.
    return ["-o", f":{paths.stdout}", *(["-j", "y"] if p.stderr_to_stdout else ["-e", f":{paths.stderr}"])]


def _slot_options(p: Parameters) -> list[str]:
    total = p.nodes * p.slots
    if p.pe == "" or (p.pe is None and total == 1):
        return []
    if p.pe is None:
        raise ValueError(f"{p.nodes} x {p.slots} slots need a parallel environment: set sge_pe to one of `qconf -spl`")
    return ["-pe", p.pe.format(slots_per_node=p.slots, nodes=p.nodes), str(total)]


def _requests(p: Parameters) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    if p.time_complex:
        requests[p.time_complex] = f"{p.timeout_min // 60}:{p.timeout_min % 60:02d}:00"
    if p.gpus_per_node and p.gpu_complex:
        if p.gpu_per == "slot" and p.gpus_per_node % p.slots:
            raise ValueError(
                f"{p.gpu_complex} counts per slot, and the {p.slots} slots of a node cannot share GPUs, "
                f"{p.gpus_per_node} in all: set sge_slots_per_node to a number that divides it"
            )
        requests[p.gpu_complex] = p.gpus_per_node // (p.slots if p.gpu_per == "slot" else 1)
    if p.mem_gb and p.mem_complex:
        mib = math.ceil(p.mem_gb * 1024 / (p.slots if p.mem_per == "slot" else 1))
        requests[p.mem_complex] = f"{mib}M" if mib % 1024 else f"{mib // 1024}G"
    return {**requests, **p.complexes}


def _ids(hold_jid: str | int | Sequence[str | int]) -> str:
    ids = [hold_jid] if isinstance(hold_jid, str | int) else hold_jid
    # One waits for whole arrays: submitit's 12_3 is task 3 of 12.
    return ",".join(dict.fromkeys(str(job_id).partition("_")[0] for job_id in ids))


def _has_id(folder: Path) -> bool:
    return JobPaths.get_first_id_independent_folder(folder) != folder


def _in_bash(paths: JobPaths) -> list[str]:
    """The log paths as bash reads them inside double quotes, with the ids of the running job."""
    quoted = [re.sub(r'([$`"\\])', r"\\\1", str(path)) for path in (paths.stdout, paths.stderr)]
    return [path.replace("%A", "${JOB_ID}").replace("%a", "${SGE_TASK_ID}") for path in quoted]
