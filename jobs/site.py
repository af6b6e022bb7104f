"""What a site profile holds: what a cluster calls its queues, parallel environments, GPUs and memory."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from shard_tools.base.errors import BAD_INPUT, UserError
from shard_tools.base.options import expand
from shard_tools.base.text import plural

OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("partition", "queue_name", "q"), "queue"),
    **dict.fromkeys(("project", "group"), "account"),
    **dict.fromkeys(("time_limit", "walltime", "h_rt"), "time"),
    **dict.fromkeys(("cpus", "cores", "slots", "cpus_per_task", "slots_per_node"), "cpus_per_node"),
    **dict.fromkeys(("mem", "mem_gb", "memory_per_node"), "memory_gb"),
    **dict.fromkeys(("parallel_environment", "pe_name"), "pe"),
    **dict.fromkeys(("gres", "gpu_complex", "gpu_type", "gpus"), "gpu"),
    **dict.fromkeys(("mem_complex",), "memory"),
    **dict.fromkeys(("module", "module_load"), "modules"),
    **dict.fromkeys(("conda_env", "environment", "env"), "conda"),
    **dict.fromkeys(("virtualenv",), "venv"),
    **dict.fromkeys(("apptainer", "singularity", "image"), "container"),
    **dict.fromkeys(("tmpdir", "tmp"), "scratch"),
}
"""What others call settings of a site, and what they are called here."""


@dataclass(frozen=True, kw_only=True)
class ResourceType:
    """What a site hands out as a whole under a name, as ABCI's rt_F: its GPUs and cores."""

    gpus: int = 0
    cpus: int = 0
    several_nodes: bool = False
    """Whether a job may have more than one of it."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A cluster and how to ask it for things. Empty settings are not asked for."""

    name: str
    file: str = ""
    """Absolute path of the profile; empty for one that comes with this package."""
    scheduler: str
    """The name of its scheduler."""
    queue: str = ""
    """Slurm's partition, Grid Engine's queue."""
    account: str = ""
    """Slurm's account, Grid Engine's project."""
    account_option: str = "-P"
    """What Grid Engine's qsub takes the account with; ABCI: -g."""
    qos: str = ""
    """Slurm's."""
    time: str = ""
    """Time limit of a job for which none is given, such as 24h."""
    cpus_per_node: int = 0
    """Cores (Grid Engine: slots) to ask for on each node, where --cpus is not given."""
    memory_gb: float = 0.0
    """GB to ask for on each node, where --mem is not given."""
    pe: str = ""
    """Grid Engine's parallel environment for several nodes, which has to share slots out evenly; {slots_per_node} in it
    is filled in, as in mpi-{slots_per_node}."""
    pe_one_node: str = ""
    """Grid Engine's parallel environment for several slots on one node."""
    gpu: str = ""
    """Grid Engine's complex for GPUs; Slurm: the kind of GPU, such as a100."""
    gpu_per: Literal["host", "slot"] = "host"
    """Whether the number of GPUs is meant for each host or each slot."""
    memory: str = ""
    """Grid Engine's complex for memory, such as m_mem_free, not h_vmem, which limits the address space; default: one
    for memory that is used."""
    memory_per: Literal["host", "slot"] = "slot"
    """Whether the amount of memory is meant for each host or each slot."""
    resource_types: Mapping[str, ResourceType] = field(default_factory=dict)
    """Resource types by name; the smallest that fits is requested (-l NAME=NODES) instead of slots, GPUs and memory."""
    options: tuple[str, ...] = ()
    """More options, as ["--constraint=a100"] or ["-l", "os=rocky9"]."""
    scratch: str = ""
    """Directory on each node's own disk for temporary files; variables such as $USER are the node's."""
    modules: tuple[str, ...] = ()
    """Environment modules to load."""
    conda: str = ""
    """Conda environment to activate."""
    venv: str = ""
    """Virtual environment to activate, from the project's directory."""
    container: str = ""
    """Command that starts the container of the ranks, such as apptainer exec --nv hpcgender.sif. {directory} in it is
    the project's, which the container must have at the same place."""
    container_python: str = "python3"
    """The container's Python."""
    log_sync: str = ""
    """Command that runs beside the job so that its log can be read from elsewhere, with {log} for the log."""

    @cached_property
    def agent_python(self) -> tuple[str, ...]:
        """The command that starts Python for agents and ranks in this directory."""
        if not self.container:
            return (sys.executable,)
        words = [expand(word).replace("{directory}", str(Path.cwd())) for word in shlex.split(self.container)]
        return (*words, self.container_python)

    @property
    def launcher_python(self) -> str:
        """The launcher's Python in a job, quoted for the shell: the submitting one, or that which `setup` activates."""
        return "python" if self.conda or self.venv else shlex.quote(sys.executable)

    def setup(self) -> list[str]:
        """The shell commands of a job's script before the launcher starts; the first to fail ends the job with 2."""
        lines = []
        if self.modules:
            lines.append(_needed("module", "modules"))
        load = "module load"
        lines += [_or_stop(f"{load} {shlex.quote(name)}", f"modules: {name} cannot be loaded") for name in self.modules]
        if self.conda:
            lines.append(_needed("conda", "conda"))
            activate = f'eval "$(conda shell.bash hook)" && conda activate {shlex.quote(self.conda)}'
            lines.append(_or_stop(activate, f"conda: {self.conda} cannot be activated"))
        if self.venv:
            script = shlex.quote(f"{self.venv}/bin/activate")
            lines.append(_or_stop(f"[ -f {script} ] && . {script}", f"venv: {self.venv} cannot be activated"))
        begin = shlex.quote(f"launch: site {self.name}: ")
        stop = f'stop() {{ printf \'%s%s on %s\\n\' {begin} "$1" "$(hostname)" >&2; exit {BAD_INPUT}; }}'
        return [stop, *lines] if lines else []

    def resource_type(self, nodes: int, gpus: int, cpus: int) -> str:
        """The name of the smallest resource type that fits; UserError if none does."""
        fit = [
            (kind.gpus, kind.cpus, name)
            for name, kind in self.resource_types.items()
            if kind.gpus >= gpus and kind.cpus >= cpus and (kind.several_nodes or nodes == 1)
        ]
        if not fit:
            known = ", ".join(f"{name}: {plural(kind.gpus, 'GPU')}" for name, kind in self.resource_types.items())
            wanted = f"{plural(nodes, 'node')} with {plural(gpus, 'GPU')} and {plural(cpus, 'core')} each"
            raise UserError(f"site {self.name}: no resource type for {wanted} ({known})")
        return min(fit)[2]

    def plain(self) -> dict[str, Any]:
        """All settings that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}


def _needed(program: str, setting: str) -> str:
    return _or_stop(f"command -v {program} >/dev/null", f"{setting}: there is no command {program}")


def _or_stop(command: str, why: str) -> str:
    return f"{command} || stop {shlex.quote(why)}"
