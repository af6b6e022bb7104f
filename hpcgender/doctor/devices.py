"""Checks of the GPUs: whether those that were granted are seen, whether a kernel runs on each, who else is on them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from hpcgender.distributed import Ranks, select_device
from hpcgender.doctor.finding import Finding, green, red, yellow
from jobs import machine
from shard_tools.base.contracts import DEVICE
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.text import byte_size, plural

DRIVER = Path("/proc/driver/nvidia/version")
"""What the NVIDIA driver shows while it is loaded, also to a process that no GPU was granted to."""
SLURM_GPUS = "SLURM_GPUS_ON_NODE"
SIDE = 512
"""Rows and columns of the product that tries a device."""
VIDEO = "libnvcuvid.so.1"
"""The driver's library of the GPU's own decoders, which containers have with the capability `video` alone."""


def gpus(environ: Mapping[str, str], driver: Path = DRIVER) -> Finding:
    """Whether torch sees the GPUs that this node was granted, and whether none were where its `driver` is loaded."""
    granted = machine.visible_gpus(environ)
    if environ.get(DEVICE) == "cpu":
        found = f"{DEVICE}=cpu: the CPU computes"
        if not granted:
            return none_granted(found, driver)
        return yellow("GPUs", f"{found}, and {plural(len(granted), 'granted GPU')} idle", f"unset {DEVICE}", gpus=0)
    try:
        device = select_device()
    except UserError as error:
        return red("GPUs", str(error), "ask the administrators if the job asked for GPUs as the site profile says")
    seen = torch.cuda.device_count() if device.type == "cuda" else 0
    if seen != len(granted):
        return red(
            "GPUs",
            f"{len(granted)} granted ({', '.join(granted) or 'none'}), {seen} seen by torch",
            "see CUDA_VISIBLE_DEVICES, and gpu in the site profile",
            gpus=seen,
        )
    variable, promised = promised_gpus(environ)
    if promised > seen:
        advice = "see CUDA_VISIBLE_DEVICES, and gpu in the site profile"
        return yellow("GPUs", f"{promised} granted ({variable}), {seen} seen by torch", advice, gpus=seen)
    if not seen:
        return none_granted("none: the CPU computes", driver)
    names = sorted({torch.cuda.get_device_name(number) for number in range(seen)})
    return green("GPUs", f"{seen} of {', '.join(names)}", gpus=seen)


def none_granted(found: str, driver: Path) -> Finding:
    """No GPU: fine where the machine has none."""
    if not driver.exists():
        return green("GPUs", found, gpus=0)
    advice = (
        "ask for them if you want them: --gpus-per-node of the launcher, --gres=gpu:N of Slurm, or as the site says"
    )
    return yellow("GPUs", f"{found}, but this node has an NVIDIA driver: no GPU was granted", advice, gpus=0)


def promised_gpus(environ: Mapping[str, str]) -> tuple[str, int]:
    """The variable in which the scheduler says how many GPUs it has granted on this node, and how many; else 0."""
    if (count := environ.get(SLURM_GPUS, "")).isdecimal():
        return SLURM_GPUS, int(count)
    variable = environ.get(machine.GPU_VARIABLE, "")
    return variable, len(environ.get(variable, "").replace(",", " ").split())


def devices(environ: Mapping[str, str]) -> list[torch.device]:
    """The devices to try: all GPUs that are seen, or the CPU."""
    if environ.get(DEVICE) == "cpu" or not torch.cuda.is_available():
        return [torch.device("cpu")]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def kernel(device: torch.device) -> Finding:
    """Whether a kernel runs on a device, and computes what it should."""
    check = f"kernel on {device}"
    remedy = "leave this device or node out, and tell the administrators; a wrong build of torch: bash jobs/install.sh"
    whole = torch.arange(SIDE * SIDE, dtype=torch.float32).reshape(SIDE, SIDE) % 7
    expected = whole @ whole
    try:
        with torch.no_grad():
            on_device = whole.to(device)
            product = (on_device @ on_device).cpu()
    except (RuntimeError, NotImplementedError) as error:
        return red(check, " ".join(str(error).split())[:300], remedy)
    if not torch.equal(product, expected):  # whole numbers below 2 ** 24, and 7 fits TF32: exact in any order
        return red(check, "a matrix product is wrong", remedy)
    return green(check, "runs")


def memory(device: torch.device) -> Finding:
    """Whether a GPU's memory is free, or someone else's processes are on it."""
    free, total = torch.cuda.mem_get_info(device)
    return judge_memory(str(device), free, total)


def judge_memory(device: str, free: int, total: int) -> Finding:
    """What `free` of `total` bytes of a GPU, of which this process has a context of up to 1 GB, mean."""
    check, found = f"memory of {device}", f"{byte_size(free)} of {byte_size(total)} free"
    if free < 0.85 * total - 1e9:
        advice = "others use this GPU: see nvidia-smi, ask for it exclusively, or leave it out"
        return yellow(check, found, advice, free_bytes=free, total_bytes=total)
    return green(check, found, free_bytes=free, total_bytes=total)


def video(library: str = VIDEO) -> Finding:
    """Whether the GPU's own decoders can be used, for --backend dali-mixed: without them its cores decode, unsaid."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        advice = "give the container the driver's capability video (NVIDIA_DRIVER_CAPABILITIES=all), or --backend dali"
        return yellow("hardware decoder", f"the GPU's JPEG decoder cannot be used: {one_line(error)}", advice)
    return green("hardware decoder", f"{library} is there")


def here(backend: str, ranks: Ranks) -> list[Finding]:
    """What this rank checks of its node's GPUs: its own one, as that may be for one process alone, and the first rank
    what is of them all. Where there are more GPUs than ranks, they share the others."""
    found = []
    if not ranks.local_rank:
        found.append(gpus(os.environ))
        if found[0].state == "red":
            return found
        if backend == "dali-mixed" and any(device.type == "cuda" for device in devices(os.environ)):
            found.append(video())
    for device in devices(os.environ)[ranks.local_rank :: ranks.local_world_size]:
        found.append(kernel(device))
        if device.type == "cuda":
            found.append(memory(device))
    return found
