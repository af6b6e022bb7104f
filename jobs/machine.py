"""What this machine has: GPUs that a job may use, and ports for the rendezvous."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PORT_TRIES = 8
"""How many ports are tried before giving up."""

GPU_VARIABLE = "JOBS_GPU_VARIABLE"
"""The environment variable in which agents find the name of that in which their scheduler lists granted GPUs."""

_FIRST_PORT = 10_000


def visible_gpus(environ: Mapping[str, str], dev: Path = Path("/dev")) -> tuple[str, ...]:
    """The names of the GPUs that a process may use, as in CUDA_VISIBLE_DEVICES; empty if there are none.

    Without that mask, GPU_VARIABLE may name the variable that lists which were granted, as Univa's SGE_HGR_gpu.
    """
    mask = environ.get("CUDA_VISIBLE_DEVICES")
    if mask is not None:
        return parse_gpu_mask(mask)
    usable = _usable_devices(dev)
    granted = re.findall(r"(\d+)(?:\s|$)", environ.get(environ.get(GPU_VARIABLE, ""), ""))
    places = [usable.index(int(number)) for number in granted if int(number) in usable]
    if places and len(places) == len(granted):  # else the site has names of its own for them
        return tuple(map(str, places))
    return tuple(map(str, range(len(usable) or _count_by_nvidia_smi())))


def has_gpus(dev: Path = Path("/dev")) -> bool:
    """Whether this machine has a GPU that this process may open, whatever a mask lists."""
    return bool(_usable_devices(dev) or _count_by_nvidia_smi())


def _usable_devices(dev: Path) -> list[int]:
    """The numbers of the GPUs whose device files may be opened: CUDA calls them 0, 1, 2 ... in this order."""
    usable = []
    for path in dev.glob("nvidia*"):
        if re.fullmatch(r"nvidia\d+", path.name):
            with suppress(OSError):  # a cgroup keeps the devices of others away
                os.close(os.open(path, os.O_RDWR))
                usable.append(int(path.name.removeprefix("nvidia")))
    return sorted(usable)


def parse_gpu_mask(mask: str) -> tuple[str, ...]:
    """The entries of a CUDA_VISIBLE_DEVICES up to the first invalid one, where CUDA stops reading, too.

    Of slices of a GPU (MIG) a process sees one, so the first counts alone; and NCCL does not connect those of one GPU.
    """
    gpus: list[str] = []
    for entry in map(str.strip, mask.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-.+", entry):
            break
        if entry.startswith("MIG-"):
            return tuple(gpus) or (entry,)
        gpus.append(entry)
    return tuple(gpus)


def _count_by_nvidia_smi() -> int:
    # Where the device files have other names, as under WSL.
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def candidate_ports(job_id: str, ephemeral_range: str) -> Iterator[int]:
    """PORT_TRIES different ports derived from the job id, all below the ephemeral range.

    `ephemeral_range` is the text of /proc/sys/net/ipv4/ip_local_port_range. Below it no outgoing connection takes a
    port by chance, and jobs on a shared node begin at different ones. Where the range leaves no room below, the
    usual room is taken.
    """
    end = int(ephemeral_range.split()[0])
    first, end = (_FIRST_PORT, end) if end >= 2 * _FIRST_PORT else (1024, end) if end >= 4096 else (_FIRST_PORT, 32_768)
    number = zlib.crc32(job_id.encode())
    # A step that shares no factor with the number of ports would be needed to visit them all; a few never meet.
    return (first + (number + 1_009 * k) % (end - first) for k in range(PORT_TRIES))


def ephemeral_range() -> str:
    """The kernel's range of ports for outgoing connections, as text."""
    try:
        return Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except OSError:
        return "32768 60999"


def port_is_free(port: int) -> bool:
    """Whether a server could listen at `port` on this machine now."""
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
            server.listen(1)
        except OSError:
            return False
    return True
