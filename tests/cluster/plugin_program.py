"""A script as anybody may write it, of any project, that submits its functions to Grid Engine through submitit.

`python plugin_program.py SCENARIO` runs one scenario and prints as JSON what came of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission


def executor(folder: str = "jobs folder: 'a, b' \"$(touch harm)\"", **parameters: Any) -> submitit.AutoExecutor:
    made = submitit.AutoExecutor(folder, cluster="sge")
    made.update_parameters(**{"timeout_min": 5, **parameters})
    return made


def add(first: int, second: int) -> int:
    print(f"adding {first} and {second}")
    print("a warning", file=sys.stderr)
    return first + second


def fail() -> None:
    raise KeyError("no such face")


def sleep(seconds: float = 600) -> float:
    time.sleep(seconds)
    return seconds


def exit_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        sys.exit(99)
    return os.environ["RESTARTED"]


def who() -> dict[str, Any]:
    environment = submitit.JobEnvironment()
    print(f"rank {environment.global_rank} speaks")
    names = ("global_rank", "local_rank", "node", "num_tasks", "num_nodes", "hostname")
    return {**{name: getattr(environment, name) for name in names}, "hosts": list(environment.hostnames)}


class Count:
    """Counts to `goal`, half a second each; goes on after a requeue from where it was."""

    def __init__(self, goal: int) -> None:
        self.goal = goal
        self.reached = 0
        self.starts: list[int] = []

    def __call__(self) -> dict[str, Any]:
        self.starts.append(self.reached)
        rank = submitit.JobEnvironment().global_rank
        if rank:
            time.sleep(600 if len(self.starts) == 1 else 0)
        while self.reached < self.goal and not rank:
            time.sleep(0.5)
            self.reached += 1
        return {"starts": self.starts, "reached": self.reached}

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(self)


def wait_for_state(job: Any, state: str) -> None:
    while job.watcher.get_state(job.job_id, mode="force") != state:
        time.sleep(0.2)


def final_state(job: Any) -> str:
    while not job.watcher.is_done(job.job_id, mode="force"):  # its result is there before its end
        time.sleep(1)
    return str(job.state)


def outcome(job: Any) -> dict[str, Any]:
    error = job.exception()
    return {"error": str(error), "kind": type(error).__name__, "state": final_state(job)}


def submit() -> Any:
    job = executor(name='1. "it\'s" $(touch harm); é/:*').submit(add, 2, 3)
    return {"result": job.result(), "out": job.stdout(), "err": job.stderr(), "state": final_state(job)}


def one_log() -> Any:
    job = executor("logs/%j/x", stderr_to_stdout=True).submit(add, 2, 3)
    return {"result": job.result(), "out": job.stdout(), "err": job.stderr()}


def exception() -> Any:
    return outcome(executor().submit(fail))


def array() -> Any:
    from jobs.sge import executor as module

    module.max_array_tasks = lambda: 3  # type: ignore[assignment]
    jobs = executor(sge_array_parallelism=2).map_array(add, [1, 2, 3, 4, 5], [10] * 5)
    results = [job.result() for job in jobs]
    return {"results": results, "ids": [job.job_id for job in jobs], "out": [job.stdout() for job in jobs]}


def cancel() -> Any:
    running = executor().submit(sleep)
    waiting = executor(sge_complexes={"gpu": 99}).submit(sleep)
    array = executor(sge_array_parallelism=1).map_array(sleep, [5, 600])
    wide = executor(nodes=2, tasks_per_node=2, sge_pe="mpi{slots_per_node}", sge_notify=True).submit(sleep)
    wait_for_state(running, "RUNNING")
    wait_for_state(wide, "RUNNING")
    wait_for_state(waiting, "PENDING")
    with contextlib.suppress(FileNotFoundError):
        while "Starting" not in (wide.task(3).stdout() or ""):
            time.sleep(0.2)
    array[1].cancel()
    for job in (running, wide, waiting):
        job.cancel()
    return {
        **{name: outcome(job) for name, job in (("running", running), ("waiting", waiting))},
        "wide": outcome(wide.task(0)),
        "array": [array[0].result(), outcome(array[1])],
    }


def time_limit() -> Any:
    job = executor(timeout_min=1, nodes=2, sge_pe="mpi1").submit(Count(60))
    results = job.results()
    return {"results": results, "out": job.task(0).stdout()}


def exit_99() -> Any:
    return executor().submit(exit_once, str(Path("marker").absolute())).result()


def tasks() -> Any:
    job = executor(nodes=2, tasks_per_node=2, sge_pe="mpi{slots_per_node}").submit(who)
    return {"results": job.results(), "out": [job.task(rank).stdout() for rank in range(4)]}


def first_host_only() -> Any:
    job = executor(nodes=2, tasks_per_node=2, sge_pe="mpi2", sge_use_qrsh=False).submit(who)
    return {"results": job.results()}


def too_few_hosts() -> Any:
    return outcome(executor(nodes=2, sge_pe="smp").submit(who).task(0))


def error_state() -> Any:
    job = executor(sge_additional_parameters={"o": "/nonexistent/log"}).submit(add, 1, 2)
    found = outcome(job)
    job.cancel()
    return found


def limit_enforced() -> Any:
    return outcome(executor(sge_complexes={"h_rt": "0:0:4"}).submit(sleep))


def wait_for(directory: str) -> str:
    Path(directory, f"rank-{submitit.JobEnvironment().global_rank}").touch()
    while not Path(directory, "go").exists():
        time.sleep(0.2)
    return f"{os.environ['RESTARTED']} on {submitit.JobEnvironment().hostname}"


def lost_host() -> Any:
    job = executor(nodes=2, sge_pe="mpi1").submit(wait_for, str(Path.cwd()))
    Path("id").write_text(job.job_id)
    return {"results": job.results(), "err": job.task(0).stderr()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
