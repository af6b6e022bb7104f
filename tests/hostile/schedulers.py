"""Schedulers that answer nonsense, or nothing: programs in the place of Slurm's and Grid Engine's."""

from __future__ import annotations

import os
import random
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hpcgender.commands import HPCGENDER
from hpcgender.status import cancel
from jobs import command as commands
from jobs import preflight
from jobs.command import SchedulerError
from jobs.scheduler import Allocation, Host
from jobs.schedulers import named
from jobs.sge import executor
from shard_tools.base.errors import UserError
from tests.hostile.base import Base
from tests.hostile.mutations import damaged, text_damaged
from tests.hostile.workers import REFUSED, command
from tests.hpcgender.status_records import make_record, start
from tests.jobs.slurm import test_limits as slurm
from tests.programs import put
from tests.violations import ViolationError

DATA = Path(__file__).parent.parent / "jobs" / "sge" / "data"
LIMIT = 0.3
"""Seconds that a command of a scheduler may take here; else a minute."""
SQUEUE = "12|RUNNING|1:00:00|2026-01-02T03:04:05|node1|None|train\n13_2|PENDING|1:00|N/A||(Priority)|mine\n"
SACCT = "12|FAILED|3:0|node1|None|2026-01-02T03:04:05|train\n13_2|TIMEOUT|0:0|node1|None|Unknown|mine\n"
ANSWERS: dict[str, dict[str, str]] = {
    "slurm": {
        "squeue": SQUEUE,
        "sacct": SACCT,
        "scontrol": f"{slurm.WAITING.format(cpus=4)}\n{slurm.CONFIG}{slurm.PARTITIONS}EndTime=2026-01-02T03:04:05\n",
        "sinfo": slurm.NODES.format(state="idle"),
        "sacctmgr": slurm.QOS + slurm.ASSOCIATION,
        "sbatch": "Submitted batch job 21\n",
        "scancel": "",
    },
    "sge": {
        "qstat": (DATA / "qstat.xml").read_text(),
        "qacct": (DATA / "qacct.txt").read_text(),
        "qconf": "load_report_time 00:00:40\nmax_aj_tasks 1000\nh_rt 01:00:00\nh_vmem h_vmem MEMORY <= YES YES 0 0\n",
        "qsub": "21\n",
        "qhost": "node1 lx-amd64 4 1 4 4 0.1 7G 1G 0 0\n",
        "qdel": "",
        "qalter": "",
        "qmod": "",
    },
}
PAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>\n"


def rubbish(text: str, draw: random.Random, canary: str) -> bytes:
    """An answer that no scheduler gives."""
    how = draw.randrange(6)
    if how == 0:
        return draw.choice((b"", b"\n", PAGE.encode(), b"slurm_load_jobs error\n", draw.randbytes(300), b"|" * 40))
    if how == 1:
        return damaged(text.encode(), draw)
    if how == 2:
        return (text * 3)[draw.randrange(len(text) or 1) :].encode()
    return text_damaged(text, draw, canary).encode("utf-8", "surrogatepass")


def answers_with(directory: Path, name: str, answer: bytes, last: str = "") -> None:
    """A program that prints an answer, and then what `last` does."""
    (directory / f"{name}.answer").write_bytes(answer)
    put(directory, name, f"cat {shlex.quote(str(directory / name))}.answer\n{last}")


@contextmanager
def programs(kind: str, work: Path, draw: random.Random, canary: str) -> Iterator[None]:
    """A scheduler's programs, of which one or some are not as they should be, and a code that is impatient."""
    directory = work / "bin"
    directory.mkdir()
    names = list(ANSWERS[kind])
    bad = {draw.choice(names)} if draw.random() < 0.7 else set(draw.sample(names, 3))
    for name, text in ANSWERS[kind].items():
        answer = rubbish(text, draw, canary) if name in bad else text.encode()
        last = draw.choice((*[""] * 7, *["exit 1"] * 2, "exec sleep 60")) if name in bad else ""
        answers_with(directory, name, answer, last)
    with ExitStack() as stack:
        environment = {"PATH": f"{directory}:/usr/bin:/bin", "SGE_ROOT": str(work) if kind == "sge" else ""}
        environment["SLURM_CONF"] = str(directory / "scontrol") if kind == "slurm" else ""
        stack.enter_context(patch.dict(os.environ, environment))
        stack.enter_context(patch.object(commands, "LIMIT_SECONDS", LIMIT))
        stack.enter_context(patch.object(preflight, "SUBMIT_SECONDS", LIMIT))
        stack.enter_context(patch.object(executor, "SUBMIT_SECONDS", LIMIT))
        stack.enter_context(patch.object(cancel, "LOOK_SECONDS", LIMIT))
        executor.max_array_tasks.cache_clear()
        yield


def answered(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`jobs`, `launch`, `study` and a job itself, where a scheduler answers nonsense: they say so, and go on or end."""
    kind = draw.choice(("slurm", "sge"))
    for job_id, name in (("12", "mine"), ("14", "other"), ("13.2" if kind == "sge" else "13_2", "third")):
        make_record(work / "runs" / name, job_id, kind, [start()] if draw.random() < 0.5 else [])
    (work / "site.toml").write_text(
        f'scheduler = "{kind}"\nqueue = "debug"\npe = "mpi"\npe_one_node = "smp"\nlauncher_python = "python3"\n'
    )
    (work / "s.toml").write_text(
        'name = "s"\n[base]\nmodel = "compact"\nimage_size = 32\nepochs = 1\n[grid]\nseed = [1, 2]\n'
        f'[evaluate]\ndata = ["{base.shards}"]\n'.replace("[grid]", f'data = "{base.shards}"\n[grid]')
    )
    site = ("--site", work / "site.toml")
    train = ("train", "--data", base.shards, "--name", "new", "--model", "compact", "--image-size", 32)
    words = draw.choice((
        ("jobs",),
        ("jobs", "--json", "--all"),
        ("jobs", "why", draw.choice(("mine", "12", "77", "third"))),
        ("jobs", "logs", "mine"),
        ("jobs", "cancel", draw.choice(("mine", "12", "13"))),
        ("jobs", "resubmit", draw.choice(("mine", "third"))),
        ("launch", *site, "--", *train),
        ("launch", *site, "--nodes", 2, "--time", "2h", "--chain", "eval", "--", *train),
        ("launch", *site, "--after", "12", "--", *train),
        ("sites", "check", *site),
        ("study", work / "s.toml", *site),
        (),
        (),
    ))  # fmt: skip
    with programs(kind, work, draw, str(base.canary)):
        if words:
            return Counter({command(HPCGENDER, *words).verdict: 1})
        return inside(kind, draw)


def inside(kind: str, draw: random.Random) -> Counter[str]:
    """What a job itself asks its scheduler."""
    scheduler = named(kind)
    job = Allocation(scheduler=scheduler, job_id="12", hosts=(Host("node1", 1), Host("node2", 1)))
    environ: dict[str, Any] = {"JOB_ID": "12", "SGE_TASK_ID": "undefined", "QUEUE": "debug"}
    questions = (
        lambda: scheduler.end_time(job, environ),
        lambda: scheduler.submitted(job, environ),
        lambda: scheduler.asked_for(job, environ),
        lambda: scheduler.is_cancelled(job, draw.choice((None, "SIGUSR2"))),
        lambda: scheduler.is_requeued(job, environ),
        lambda: scheduler.cannot_requeue(job),
        lambda: scheduler.requeue(job, 0.0),
        lambda: scheduler.find(["12", "13"]),
        lambda: scheduler.details("12"),
        lambda: scheduler.advice("12", "", ()),
    )
    with patch.dict(os.environ, environ):
        for question in questions:
            try:
                question()
            except (SchedulerError, UserError) as error:  # noqa: PERF203
                if "\n" in str(error):
                    raise ViolationError(f"more than a line: {error}") from None
    return Counter({REFUSED: 1})
