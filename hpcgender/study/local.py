"""A study on this machine: its commands as local launches, so many at a time, each with a record and a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import JobConfig
from hpcgender.commands.study import ResultConfig, StudyConfig
from hpcgender.launch.record import log_path
from hpcgender.log_lines import AttemptLine
from hpcgender.option_layers import spelled_out
from hpcgender.study.file import Study
from jobs import machine, records
from jobs.hosts.processes import die_with_parent, exit_words
from jobs.records import Resources, Submission
from jobs.schedulers import LOCAL
from jobs.stopping import StopRequests
from shard_tools.base.commands import Call
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import FAILED, REQUEUE, UserError
from shard_tools.base.extras import CODE
from shard_tools.base.text import duration

_POLL_SECONDS = 0.1
_TO_LOG = 'log=$1; shift; exec "$@" >>"$log.o$$" 2>&1'  # a log has the number of its process, as a job's has its id


@dataclass(frozen=True, kw_only=True)
class Running:
    """A command at work."""

    call: Call[Any]
    process: subprocess.Popen[bytes]
    place: int
    """Which share of the machine it has."""
    log: Path
    began: float

    @property
    def name(self) -> str:
        """Its results in short."""
        return " ".join((self.call.command.name, str(self.call.results)))


def run_here(config: StudyConfig, wanted: Study, stages: Sequence[Sequence[Call[Any]]]) -> int:
    """Runs each stage after the one before, `config.at_once` commands at a time; returns the exit code.

    A command that fails does not keep the others from running. When this process is asked to stop, or is killed, the
    commands are asked to stop, too.
    """
    failed = 0
    with StopRequests() as requests, recorded(config, wanted) as record:
        for calls in stages:
            failed += run_stage(config, wanted, calls, requests)
            if requests.reason:
                print(f"study {wanted.name}: stopped by {requests.reason}; the same command goes on", flush=True)
                break
        code = REQUEUE if requests.reason else FAILED if failed else 0
        event = {"event": "end", "attempt": 1, "code": code, "requeued": False, "stopped_by": requests.reason}
        records.append_event(record, **event, time=time.time(), progress=None)
    return code


def run_stage(config: StudyConfig, wanted: Study, calls: Sequence[Call[Any]], requests: StopRequests) -> int:
    """Runs the commands, and returns how many have failed."""
    at_once = config.at_once or 1
    waiting, running, failed, asked = list(calls), list[Running](), 0, 0
    while (waiting and not requests.reason) or running:
        while waiting and len(running) < at_once and not requests.reason:
            call = waiting.pop(0)
            try:
                call.check()  # what a training has left may not do for its evaluation
            except UserError as error:
                print(f"{call.command.name} {call.results}: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
            place = min({*range(at_once)} - {one.place for one in running})
            running.append(started(config, wanted, call, place, at_once))
        time.sleep(_POLL_SECONDS)
        wish = signal.SIGKILL if requests.impatient else signal.SIGTERM if requests.reason else 0
        for one in running if wish != asked else ():
            one.process.send_signal(wish)
        asked = wish
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            failed += bool(one.process.returncode)
            print_end(one, f"{len(calls) - len(waiting) - len(running)}/{len(calls)}")
    return failed


def print_end(ended: Running, number: str) -> None:
    """Prints how a command has ended; of the result of the study its output."""
    code = ended.process.returncode
    took = duration(time.monotonic() - ended.began)
    log = f": see {os.path.relpath(ended.log)}" if code else ""
    print(f"{number} {ended.name}: {exit_words(code) if code else 'done'}, {took}{log}", flush=True)
    if not code and isinstance(ended.call.options, ResultConfig):
        lines = ended.log.read_text().splitlines(keepends=True)
        print("".join(line for line in lines if not AttemptLine.parse(line.rstrip("\n"))), end="", flush=True)


def started(config: StudyConfig, wanted: Study, call: Call[Any], place: int, at_once: int) -> Running:
    """Starts a command on a share of this machine."""
    own = {field.name: getattr(config, field.name) for field in fields(JobConfig)}
    resources = replace(JobConfig(**own), scheduler=LOCAL.name)  # type: ignore[arg-type]
    if not call.command.distributed:
        resources = replace(resources, nodes=None, procs_per_node=None)
    if at_once > 1 and not resources.cpus:
        resources = replace(resources, cpus=max(1, len(os.sched_getaffinity(0)) // at_once))
    name = Path("logs") / wanted.name
    name.parent.mkdir(exist_ok=True)
    launch = [sys.executable, "-u", "-m", "hpcgender.launch", *spelled_out(resources), "--job-name", wanted.name]
    process = subprocess.Popen(
        ["bash", "-c", _TO_LOG, "bash", str(name), *launch, "--", *call.words],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **gpus(place, at_once, config)},
        start_new_session=True,  # Ctrl-C asks this process alone
        preexec_fn=partial(die_with_parent, signal.SIGTERM),  # noqa: PLW1509  # there are no threads here
    )
    log = name.with_name(f"{name.name}.o{process.pid}")
    return Running(call=call, process=process, place=place, log=log, began=time.monotonic())


def gpus(place: int, at_once: int, config: StudyConfig) -> Mapping[str, str]:
    """The GPUs of one of `at_once` shares: each has its own if there are enough, and else one that others use, too."""
    there = machine.visible_gpus(os.environ) if at_once > 1 and config.gpus_per_node != 0 else ()
    if not there:
        return {}
    mine = there[place::at_once] if len(there) >= at_once else (there[place % len(there)],)
    return {machine.GPU_VARIABLE: ",".join(mine)}


@contextmanager
def recorded(config: StudyConfig, wanted: Study) -> Iterator[Path]:
    """The record of this process, by which it is listed and cancelled."""
    directory = wanted.directory / SUBMISSIONS / f"{records.stamp()}-{os.getpid()}"
    submission = Submission(
        name=wanted.name,
        command=("study", str(config.file)),
        argv=tuple(sys.orig_argv),
        script="",
        scheduler=LOCAL.name,
        job_id=str(os.getpid()),
        site={"name": LOCAL.name, "scheduler": LOCAL.name},
        resources=Resources(),
        after=(),
        log=log_path(),
        revision=records.revision(CODE),
        manifest="",
        directory=directory,
        **records.who_and_where(),
    )
    records.write_submission(submission, wanted.toml.text, records.surroundings(os.environ, CODE))
    records.append_event(directory, event="start", attempt=1, hosts=[submission.host], time=time.time(), progress=None)
    yield directory
