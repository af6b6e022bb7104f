"""Site profiles: what a cluster calls its queues, parallel environments, GPUs and memory, as TOML files say it."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from jobs.allocation import Scheduler

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_GENERIC = {"slurm": "slurm", "sge": "sge", "local": "local"}
_SECONDS = 10


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
    scheduler: Scheduler
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
    gpu_per: str = "host"
    """Whether the number of GPUs is meant for each host or each slot."""
    memory: str = ""
    """Grid Engine's complex for memory: h_vmem, mem_free, m_mem_free, tmem."""
    memory_per: str = "slot"
    """Whether the amount of memory is meant for each host or each slot."""
    resource_types: Mapping[str, ResourceType] = field(default_factory=dict)
    """What is asked for as -l NAME=NODES instead of slots, GPUs and memory, by name; the smallest that fits."""
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
    """What starts the container that the ranks run in, as: apptainer exec --nv hpcgender.sif."""
    container_python: str = "python3"
    """The container's Python."""
    log_sync: str = ""
    """Command that runs beside the job so that its log can be read from elsewhere, with {log} for the log."""

    @cached_property
    def agent_python(self) -> tuple[str, ...]:
        """The command that starts Python for agents and ranks."""
        return (*shlex.split(self.container), self.container_python) if self.container else (sys.executable,)

    @property
    def launcher_python(self) -> str:
        """The shell's word for the Python of the launcher in a job: the one that submits, or what `setup` activates."""
        return "python" if self.conda or self.venv else shlex.quote(sys.executable)

    def setup(self) -> list[str]:
        """The shell commands of a job's script before the launcher starts."""
        lines = [f"module load {shlex.quote(name)}" for name in self.modules]
        if self.conda:
            lines += ['eval "$(conda shell.bash hook)"', f"conda activate {shlex.quote(self.conda)}"]
        if self.venv:
            lines.append(f". {shlex.quote(f'{self.venv}/bin/activate')}")
        return lines

    def resource_type(self, nodes: int, gpus: int, cpus: int) -> str:
        """The name of the smallest resource type that fits; ValueError if none does."""
        fit = [
            (kind.gpus, kind.cpus, name)
            for name, kind in self.resource_types.items()
            if kind.gpus >= gpus and kind.cpus >= cpus and (kind.several_nodes or nodes == 1)
        ]
        if not fit:
            known = ", ".join(f"{name}: {kind.gpus} GPUs" for name, kind in self.resource_types.items())
            raise ValueError(
                f"site {self.name}: no resource type for {nodes} nodes with {gpus} GPUs and {cpus} cores each ({known})"
            )
        return min(fit)[2]

    def plain(self) -> dict[str, Any]:
        """All settings that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}


def site_names() -> list[str]:
    """The profiles that come with this package."""
    names = (path.name for path in files("jobs.sites").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_site(name: str) -> Site:
    """The profile in a file, or the shipped one of that name. ValueError, with one line, if it cannot be used."""
    path = Path(name)
    try:
        if path.is_file():
            return replace(parse_site(path.stem, str(path), path.read_text()), file=str(path.absolute()))
        if name in site_names():
            return parse_site(name, f"site {name}", (files("jobs.sites") / f"{name}.toml").read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the site profile {name}: {error}") from None
    raise ValueError(f"no site profile {name!r}: give a TOML file, or one of {', '.join(site_names())}")


def parse_site(name: str, where: str, text: str) -> Site:
    """A profile from its TOML text; ValueError says what is wrong in `where`."""
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: {error}") from None
    known = {item.name: item for item in fields(Site) if item.name not in ("name", "file")}
    for key, value in stated.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{where}: there is no setting {key!r}: {hint}")
        _check(where, key, value, str(known[key].type))
    if "scheduler" not in stated:
        raise ValueError(f"{where}: scheduler is missing: slurm, sge or local")
    types = {}
    names = [item.name for item in fields(ResourceType)]
    for kind, content in stated.pop("resource_types", {}).items():
        if not content.keys() <= set(names):
            raise ValueError(f"{where}: resource_types.{kind} may have {', '.join(names)}, not {', '.join(content)}")
        types[kind] = ResourceType(**content)
    lists = {key: tuple(value) for key, value in stated.items() if isinstance(value, list)}
    return Site(**{**stated, **lists}, name=name, resource_types=types)


def _check(where: str, key: str, value: Any, kind: str) -> None:
    choices = {"scheduler": get_args(Scheduler), "gpu_per": ("host", "slot"), "memory_per": ("host", "slot")}
    if key in choices:
        if value not in choices[key]:
            raise ValueError(f"{where}: {key} is {value!r}: give {', '.join(choices[key][:-1])} or {choices[key][-1]}")
        return
    fits = {
        "str": isinstance(value, str),
        "int": type(value) is int,
        "float": type(value) in (int, float),
        "tuple[str, ...]": isinstance(value, list) and all(isinstance(item, str) for item in value),
        "Mapping[str, ResourceType]": isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()),
    }
    if not fits[kind]:
        words = {"str": "text", "int": "a whole number", "float": "a number", "tuple[str, ...]": "a list of texts"}
        raise ValueError(f"{where}: {key} is {value!r}: it must be {words.get(kind, 'tables')}")


def find_site(name: str, scheduler: str, environ: Mapping[str, str]) -> Site:
    """The site to use: `name`, or HPCGENDER_SITE, or site.toml here, or the generic profile of the scheduler.

    `scheduler` is slurm, sge or local, or auto: the site's, or else the one that answers on this machine. ValueError,
    with one line, if that cannot be told or contradicts the site.
    """
    name = name or environ.get("HPCGENDER_SITE", "") or ("site.toml" if Path("site.toml").is_file() else "")
    if not name:
        return read_site(_GENERIC[scheduler if scheduler != "auto" else find_scheduler(environ)])
    site = read_site(name)
    if scheduler not in ("auto", site.scheduler):
        if scheduler == "local":  # by hand on a machine of that site
            return read_site("local")
        raise ValueError(f"site {site.name} has {site.scheduler}, not --scheduler {scheduler}: leave one of them out")
    return site


def find_scheduler(environ: Mapping[str, str]) -> Scheduler:
    """The scheduler that this machine can submit to; ValueError if there are two."""
    # PBS and Slurm have commands named qsub, too, and a Slurm that is installed may have no cluster.
    sge = bool(environ.get("SGE_ROOT")) and shutil.which("qconf") is not None
    slurm = shutil.which("sbatch") is not None and _slurm_is_set_up()
    if slurm and sge:
        raise ValueError("this machine has both Slurm and Grid Engine: say --scheduler slurm or --scheduler sge")
    return "slurm" if slurm else "sge" if sge else "local"


def _slurm_is_set_up() -> bool:
    if not any(Path(path).exists() for path in (os.environ.get("SLURM_CONF", ""), *_SLURM_CONF) if path):
        try:  # no file, but slurmd or DNS may know one
            ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return "Slurmctld" in ping.stdout
    return True


_SLURM_CONF = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")
