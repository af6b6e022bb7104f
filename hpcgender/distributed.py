"""The process group: this process's rank, from torchrun's environment variables, and collective operations."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

# Its functions bind the default process group of the moment of the first import, which DDP does: then gloo's threads
# outlive the group, and the process may abort at exit. Imported here, there is no group yet.
import torch.distributed.nn.functional

from shard_tools.base.commands import guarded
from shard_tools.base.contracts import DEVICE
from shard_tools.base.errors import FAILED, UserError, one_line

TIMEOUT = timedelta(minutes=10)
"""Default time that a rank waits for the others before it fails."""
SIOCGIFADDR = 0x8915
"""ioctl(2): the IPv4 address of an interface; see netdevice(7)."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The environment variables in which torchrun says which process this is."""


@dataclass(frozen=True)
class Ranks:
    """This process: `rank` of `world_size`, and the device that it computes on."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    """This process among the `local_world_size` of its node."""
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """All-reduces a tensor to its sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self, timeout: timedelta) -> None:
        """Waits for all ranks, with a timeout of its own that may be longer than the process group's."""
        if self.world_size > 1:
            group = dist.new_group(backend="gloo", timeout=timeout)
            dist.barrier(group)  # type: ignore[arg-type]  # waits, or the first to leave would close connections that others still open
            dist.destroy_process_group(group)

    def broadcast(self, value: Any) -> Any:
        """Returns rank 0's value on every rank."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value, by rank, on rank 0, and an empty list on the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, values)
        return values or []


@contextmanager
def process_group(timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Initialises the process group and destroys it at the end; a single process needs neither it nor torchrun.

    UserError if torchrun's variables, the network interface or the GPU cannot be used. An error within the context ends
    this process, with the line and the exit code that a command has for it.
    """
    rank, world_size, local_rank, local_world_size = torchrun_ranks()
    device = select_device(local_rank)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    check_interface()
    if local_world_size < world_size:
        choose_interface()
    cuda = device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout, device_id=device if cuda else None)
    try:
        yield Ranks(rank, world_size, device, local_rank, local_world_size)
    except BaseException as error:
        leave(error)
    dist.destroy_process_group()


def leave(error: BaseException) -> NoReturn:
    """Prints the error and ends this process at once, and not the process group.

    To destroy that is a collective operation of NCCL's, and the other ranks wait in another one.
    """
    raised_in = error.__traceback__

    def fail() -> NoReturn:
        raise error

    try:
        code = guarded("hpcgender", fail)
    except BaseException:
        traceback.print_exception(type(error), error, raised_in)
        code = FAILED
    end(code)


def end(code: int) -> NoReturn:
    """Ends this process at once with a code, whatever its threads and the process group wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def torchrun_ranks() -> tuple[int, int, int, int]:
    """Rank, world size, local rank and local world size from torchrun's variables; 0, 1, 0, 1 if there are none.

    UserError if some are missing or no numbers.
    """
    values = {name: os.environ.get(name) for name in TORCHRUN}
    given = [name for name, value in values.items() if value is not None]
    if not given:
        return 0, 1, 0, 1
    remedy = f"start several processes with python -m hpcgender.launch, or one with env -u {' -u '.join(given)}"
    if missing := [name for name in values if name not in given]:
        raise UserError(f"{', '.join(given)} set, but {', '.join(missing)} not set: {remedy}")
    wrong = next((f"{name}={value}" for name, value in values.items() if not (value or "").isdecimal()), None)
    if wrong:
        raise UserError(f"{wrong} is no number: {remedy}")
    rank, world_size, local_rank, local_world_size = (int(value or "") for value in values.values())
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world_size > 1 and missing:
        raise UserError(f"WORLD_SIZE is {world_size}, but {', '.join(missing)} not set: {remedy}")
    return rank, world_size, local_rank, local_world_size


def select_device(local_rank: int = 0) -> torch.device:
    """This node's GPU of that number, or the CPU where there is none or `HPCGENDER_DEVICE=cpu` asks for it.

    UserError if there are GPUs, or CUDA_VISIBLE_DEVICES or the launcher, which sets `HPCGENDER_DEVICE=cuda`, says that
    some were granted, and torch cannot use them: with a CPU among GPUs, ranks would wait for each other in vain.
    """
    wish = os.environ.get(DEVICE, "")
    if wish not in ("", "cpu", "cuda"):
        raise UserError(f"{DEVICE}={wish}: set it to cpu or cuda, or to nothing for a GPU where there is one")
    if wish == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise UserError(f"process {local_rank + 1} of this node has no GPU, as torch sees {count}: start {count}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return device
    granted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if caught or wish == "cuda" or re.match(r"\s*(\d|GPU-|MIG-)", granted):
        expected = f"CUDA_VISIBLE_DEVICES is {granted}" if granted else f"{DEVICE} is {wish}" if wish else ""
        what = f"{expected}, but torch" if expected else "torch"
        raise UserError(
            f"{what} cannot use a GPU on {socket.gethostname()}: {no_gpu_because(caught)}; correct that, or set "
            f"{DEVICE}=cpu to compute on the CPU"
        )
    return torch.device("cpu")


def no_gpu_because(caught: Sequence[warnings.WarningMessage]) -> str:
    """Why torch uses no GPU: the first sentence of its own warning or error."""
    text = str(caught[0].message) if caught else ""
    if not text:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            text = one_line(error)
    return " ".join(text.split()).partition(". ")[0].rstrip(".") or "it sees none"


def check_interface() -> None:
    """Raises UserError if GLOO_SOCKET_IFNAME names a network interface that this machine has not."""
    here = [name for _, name in socket.if_nameindex()]
    for name in filter(None, os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")):
        if name not in here:
            raise UserError(
                f"GLOO_SOCKET_IFNAME names {name}, which {socket.gethostname()} has not: give one of {', '.join(here)}"
            )


def interfaces() -> dict[str, str]:
    """The IPv4 address of each interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def choose_interface() -> None:
    """Sets GLOO_SOCKET_IFNAME where gloo, which goes by the host's name, would take the loopback, as for 127.0.1.1.

    It becomes the interface that leads to MASTER_ADDR, or on that host itself, the one that leads out.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = ""
    if address and not address.startswith("127."):
        return
    names = {known: name for name, known in interfaces().items() if not known.startswith("127.")}
    for host in (os.environ["MASTER_ADDR"], "192.0.2.1"):  # an address of nobody's, for documentation
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards, suppress(OSError):
            towards.connect((host, 9))  # sends nothing
            if chosen := names.get(towards.getsockname()[0]):
                os.environ["GLOO_SOCKET_IFNAME"] = chosen
                return
    if len(names) == 1:
        (os.environ["GLOO_SOCKET_IFNAME"],) = names.values()


def redirect_output(directory: Path, rank: int) -> None:
    """Redirects stdout and stderr of every rank but the first to `rank-<n>.log` in `directory`."""
    if rank == 0:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"rank-{rank}.log").open("a") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
