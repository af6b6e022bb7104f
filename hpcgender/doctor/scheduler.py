"""Checks of the scheduler: whether it would run a job, when the job ends, whether what is stopped saves and resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO

from hpcgender.commands.sites import CheckConfig
from hpcgender.distributed import TORCHRUN
from hpcgender.doctor.finding import Finding, green, red, yellow
from hpcgender.launch.check import could_run
from jobs.hosts.processes import how_it_ended
from jobs.scheduler import Allocation
from jobs.stopping import margin
from shard_tools.base.contracts import DEVICE
from shard_tools.base.errors import REQUEUE, UserError
from shard_tools.base.text import duration

START_SECONDS, STOP_SECONDS = 240.0, 60.0
"""How long a small training may take to begin, and to end once it is asked to."""
FIRST_EPOCH, RESUMING = "epoch 1/", "resuming "
"""What lines of its log begin with."""


def accepts(nodes: int) -> Finding:
    """Whether the scheduler of this machine could run a job on so many nodes, by the site profile."""
    try:
        return green("job", could_run(CheckConfig(nodes=nodes)))
    except UserError as error:
        return red("job", str(error), "correct the site profile, or ask for less: see hpcgender sites check")


def time_limit(allocation: Allocation, environ: Mapping[str, str], now: float) -> Finding:
    """When the job around this process ends, and whether it is asked to stop before."""
    scheduler = allocation.scheduler
    if not scheduler.has_queue:
        return green("time limit", "none: no scheduler ends what runs here")
    end = scheduler.end_time(allocation, environ)
    if end is None:
        return yellow(
            "time limit",
            f"{scheduler.title} names none for job {allocation.job_id}",
            "give --time: else a job that is ended loses what it did since its last checkpoint",
        )
    left = end - now
    return green(
        "time limit",
        f"ends in {duration(left)}; a training is asked to stop {margin(left):.0f} s before",
        left_s=left,
    )


def training(data: Path, runs: Path) -> list[str]:
    """The command of a small training that goes on until it is stopped, and resumes."""
    options = {"data": data, "runs": runs, "name": "small", "model": "resnet18", "image-size": 32, "batch-size": 8}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    without_end = ("--epochs", "10000", "--backend", "torchvision", "--resume")
    return [sys.executable, "-m", "hpcgender", "train", *words, *without_end]


def interruption(command: Sequence[str]) -> Finding:
    """Whether a training, by this command, saves and ends with 99 when it is signalled, and resumes when given again.

    It computes on the CPU, whatever else is there.
    """
    check, advice = "signals", "see what handles signals here: a wrapper, a container, or a shell without exec"
    hidden = {*TORCHRUN, "TORCHELASTIC_RUN_ID"}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    environ |= {DEVICE: "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    begin = time.monotonic()
    for number, line in ((signal.SIGUSR1, FIRST_EPOCH), (signal.SIGTERM, RESUMING)):
        code, printed = stopped_at(command, environ, line, number)
        if code != REQUEUE:
            last = printed[-1] if printed else "it printed nothing"
            how = "did not end" if code is None else f"{how_it_ended(code)}, not with {REQUEUE}"
            return red(check, f"a training that got {number.name} {how}: {last}"[:400], advice)
    seconds = time.monotonic() - begin
    return green(check, f"a training saved and ended when signalled, and resumed, all within {seconds:.0f} s")


def stopped_at(
    command: Sequence[str], environ: Mapping[str, str], line: str, number: signal.Signals
) -> tuple[int | None, list[str]]:
    """Exit code, None if it had to be killed, and output of a command that is signalled once it has printed `line`."""
    printed: list[str] = []
    lines: Queue[str] = Queue()

    def follow(output: IO[str]) -> None:
        for text in output:
            lines.put(text.rstrip())

    with subprocess.Popen(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout
        reader = Thread(target=follow, args=(process.stdout,), daemon=True)
        reader.start()
        deadline = time.monotonic() + START_SECONDS
        while not any(text.startswith(line) for text in printed):
            with suppress(Empty):
                printed.append(lines.get(timeout=0.2))
                continue
            if process.poll() is not None or time.monotonic() > deadline:
                break
        process.send_signal(number)
        try:
            code: int | None = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        process.wait()
        reader.join(5)  # a child may hold the pipe open
    while not lines.empty():
        printed.append(lines.get())
    return code, printed
