"""Checks of a machine itself: packages, driver, cores, open files, shared memory. None but `packages` imports torch."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from hpcgender.doctor.finding import Finding, green, red, yellow
from shard_tools.base.errors import one_line
from shard_tools.base.text import byte_size, plural

LEAST_DRIVER = {12: (525, 60), 13: (580, 65)}
"""The first driver of each major version of CUDA that can be installed; all of its minor ones run on it: NVIDIA, CUDA
Toolkit Release Notes, table "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility"."""
INSTALL = "bash jobs/install.sh"
ENOUGH_FILES, FEW_FILES = 4096, 512
"""Open files: a training of many shards, and below which Python with torch and DALI alone comes near the limit."""
ENOUGH_SHARED, FEW_SHARED = 1e9, 64e6
"""Bytes of /dev/shm: NCCL takes some 10 MB for each pair of GPUs of a node."""


def packages(backend: str) -> Finding:
    """Which PyTorch and DALI there are, and whether they can be imported."""
    python = f"Python {platform.python_version()}"
    try:
        import torch

        found = f"{python}, torch {torch.__version__}"
    except Exception as error:  # whatever half an installation, or one for another Python, raises
        why = f"PyTorch cannot be imported: {type(error).__name__}: {one_line(error)}"
        return red("packages", f"{python}, {why}", f"install again: {INSTALL}")
    try:
        from nvidia import dali
    except Exception as error:  # as above
        if backend == "torchvision":
            return green("packages", found)
        return yellow(
            "packages", f"{found}, DALI cannot be imported: {error}", "install DALI, or give --backend torchvision"
        )
    return green("packages", f"{found}, DALI {dali.__version__}")


def driver(cuda: str | None) -> Finding:
    """Whether the NVIDIA driver runs a torch built for CUDA version `cuda`, such as 13.0; None: built for CPUs."""
    here = driver_version()
    if not here:
        return green("driver", "no NVIDIA driver: this machine computes on its CPU")
    found = f"driver {here}, torch built for {f'CUDA {cuda}' if cuda else 'CPUs alone'}"
    if not cuda:
        return red("driver", found, f"install a torch for CUDA: {INSTALL} --cuda 13, or 12 for older drivers")
    major = int(cuda.partition(".")[0])
    least = LEAST_DRIVER.get(major)
    has = tuple(map(int, here.split(".")[:2]))
    if least and has < least:
        fits = max((known for known, first in LEAST_DRIVER.items() if has >= first), default=0)
        remedy = f"install a torch for CUDA {fits}: {INSTALL} --cuda {fits}" if fits else "have the driver updated"
        needs = ".".join(map(str, least))
        return red("driver", found, f"CUDA {major} needs driver {needs} or newer: {remedy}")
    return green("driver", found)


def driver_version() -> str:
    """The version of the NVIDIA driver, such as 580.65.06; empty if there is none."""
    text = ""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            text = ""
    elif (kernel := Path("/proc/driver/nvidia/version")).exists():
        text = kernel.read_text()
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found[0] if found else ""


def cores(processes: int, environ: Mapping[str, str]) -> Finding:
    """Whether this node's processes have a core each, and no more threads than cores."""
    usable = len(os.sched_getaffinity(0))
    found = f"{plural(usable, 'core')} for {plural(processes, 'process', 'processes')}"
    threads = environ.get("OMP_NUM_THREADS", "")
    numbers = {"cores": usable, "cores_per_process": usable / processes}
    if usable < processes:
        return red("cores", found, "ask for at least a core for each process: --cpus", **numbers)
    if threads.isdecimal() and int(threads) * processes > usable:
        return yellow(
            "cores",
            f"{found}, OMP_NUM_THREADS={threads}",
            "more threads than cores slow each other down: unset OMP_NUM_THREADS, or ask for more --cpus",
            **numbers,
        )
    return green("cores", found, **numbers)


def open_files() -> Finding:
    """How many files a process may open: a training raises its soft limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return green("open files", "no limit" if hard == resource.RLIM_INFINITY else f"{hard} at most")
    advice = f"have the hard limit raised to {ENOUGH_FILES} or more (ulimit -Hn): shards are opened again and again"
    return (red if hard < FEW_FILES else yellow)("open files", f"{hard} at most", advice)


def shared_memory(
    directory: Path = Path("/dev/shm"), enough: float = ENOUGH_SHARED, few: float = FEW_SHARED
) -> Finding:
    """Whether the processes of a node can exchange data through memory, as NCCL does."""
    remedy = "start the container with more of it (--shm-size 8g, or --ipc=host), or have it enlarged"
    try:
        with TemporaryFile(dir=directory):
            free = shutil.disk_usage(directory).free
    except OSError as error:
        return red("shared memory", f"{directory} cannot be written ({error.strerror})", remedy)
    found = f"{byte_size(free)} free in {directory}"
    if free >= enough:
        return green("shared memory", found, shared_bytes=free)
    return (red if free < few else yellow)("shared memory", found, remedy, shared_bytes=free)
