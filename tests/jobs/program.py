"""What the ranks of these tests run: `python -m tests.jobs.program MODE ARGUMENTS`, started by an agent."""

import os
import resource
import signal
import sys
import time
from pathlib import Path


def total_of_ranks() -> float:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor([float(dist.get_rank() + 1)])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return total.item()


def crash(chosen: bool) -> None:
    from torch.distributed.elastic.multiprocessing.errors import record

    @record
    def work() -> None:
        if chosen:
            raise RuntimeError("the marked crash")
        total_of_ranks()

    work()


def wait_for_stop(directory: str) -> int:
    """Leaves its pid in the directory and waits, to exit with 99 as soon as it is asked to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    Path(directory, str(os.getpid())).touch()
    end = time.monotonic() + 300
    while time.monotonic() < end and not asked:
        time.sleep(0.02)
    return 99


def main(mode: str, argument: str = "", code: str = "") -> int:
    rank = int(os.environ["RANK"])
    chosen = argument == str(rank)
    if rank and mode != "exit":  # as training does: only rank 0 speaks
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    if mode == "sum":
        total = total_of_ranks()
        print(f"sum {total:g} of {os.environ['WORLD_SIZE']}, {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    elif mode == "crash":
        crash(chosen)
    elif mode == "wait":
        return wait_for_stop(argument)
    elif mode == "files":
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    elif mode == "namespace":
        print(Path("/proc/self/ns/user").readlink(), flush=True)
    elif mode == "killed" and chosen:  # as the kernel does when memory is short
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "exit" and chosen:
        print("program: no such data", file=sys.stderr, flush=True)
        return int(code)
    else:
        time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
