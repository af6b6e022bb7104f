"""One attempt of a job: runs a command on the hosts around this process, keeps its record, requeues the job."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import LaunchConfig, minutes
from hpcgender.launch.agents import Layout, make_layout, run_layout
from hpcgender.launch.record import Submitted, end_before_start, find_record, log_path, note_refusal, write_record
from hpcgender.log_lines import LAUNCH, NOT_REQUEUED
from jobs import records, requeue
from jobs.agent import PORT_TAKEN
from jobs.scheduler import Allocation
from jobs.site import Site
from jobs.stopping import Limit, StopRequests, margin
from shard_tools.base.commands import RUNS, Call
from shard_tools.base.errors import FAILED, REQUEUE, StorageError, UserError
from shard_tools.base.text import plural

SPARE_SECONDS = 10.0
"""How long before its end a job no longer asks its scheduler again: what it could not do is still recorded."""
WITHOUT_END_SECONDS = 3600.0
"""How long a job without a known end asks again."""


def run(
    config: LaunchConfig,
    call: Call[Any],
    site: Site,
    granted: Allocation,
    submitted: Submitted | None = None,
    name: str = "",
) -> int:
    """Runs the command to its end, or to the end of this attempt, and returns its exit code.

    In a job, 99 means that the job is requeued; then the next attempt resumes. `name` is the job's in a record that is
    made here; default: the command's and its results'. Raises UserError for what can be checked beforehand, which the
    record then has.
    """
    with StopRequests() as requests:
        scheduler = granted.scheduler
        record = find_record(submitted or Submitted(), call, granted)
        events = records.read_events(record) if record else []
        if events:
            call = call.resumed()
        if submitted and submitted.nodes:
            granted = as_asked(granted, submitted.nodes)
        layout = make_layout(config, call, site, granted, os.environ)

        def written(limit: float | None) -> Path:
            procs, gpus = layout.procs_per_node, layout.gpus_per_node
            job = layout.allocation
            return write_record(config, call, job, site, limit, name, procs_per_node=procs, gpus_per_node=gpus)

        if not scheduler.orders_by_success and (because := requeue.unmet(scheduler, config.ancestors, roots(call))):
            record = record or written(None)
            records.append_event(record, event="skipped", because=because, time=time.time())
            print(f"{LAUNCH}not started, because {because}", file=sys.stderr)
            return FAILED
        try:
            call.check()
        except (UserError, StorageError) as error:
            note_refusal(error, config, granted, record, call, site)
            raise
        end_time = partial(job_end, config, granted, time.time())
        limit = end_time()
        record = record or written(limit)
        idle = requeue.idle_attempts(events, call.progress()) if events else 0
        if idle >= config.attempts:  # its nodes were lost: an attempt that ends in order finds out itself
            end_before_start(record, call, FAILED, because := f"{plural(idle, 'attempt')} without progress")
            print(f"{LAUNCH}given up: {because}", file=sys.stderr)
            return FAILED
        if limit:
            requests.watch(Limit(end_time, margin(limit - time.time())))
        hosts, of_record = len(layout.allocation.hosts), records.read_submission(record)
        wanted = (submitted.nodes if submitted else 0) or (of_record.resources.nodes if of_record else 0)
        if hosts < wanted:  # of a PE whose allocation_rule is not a number
            print(f"{LAUNCH}{wanted} nodes were asked for, {hosts} granted: continuing with fewer", file=sys.stderr)
        with synced_log(site):
            return Attempt(call, layout, record).run(config, requests)


class Attempt:
    """One attempt of a job, and its events in the record."""

    def __init__(self, call: Call[Any], layout: Layout, record: Path) -> None:
        self.call = call
        self.layout = layout
        self.record = record
        self.job = layout.allocation
        self.number = sum(event["event"] == "start" for event in records.read_events(record)) + 1
        records.append_event(
            record,
            event="start",
            attempt=self.number,
            job_id=self.job.job_id,
            restart=self.job.scheduler.restarts(os.environ),
            hosts=[host.name for host in self.job.hosts],
            time=time.time(),
            progress=call.progress(),
        )

    def run(self, config: LaunchConfig, requests: StopRequests) -> int:
        """Runs the agents, records how they ended, requeues the job if it is not done; returns the exit code."""
        outcome = run_layout(self.layout, requests)
        code = FAILED if outcome.code == PORT_TAKEN else outcome.code
        scheduler = self.job.scheduler
        if not requeue.wants_requeue(outcome) or not scheduler.has_queue:
            self.end(code, outcome.stopped_by)
            return code
        if scheduler.is_requeued(self.job, os.environ):
            requests.ignore()
            self.end(REQUEUE, outcome.stopped_by, requeued=True)
            print(f"{LAUNCH}requeued by {scheduler.title}", file=sys.stderr, flush=True)
            return REQUEUE
        idle = requeue.idle_attempts(records.read_events(self.record), self.call.progress())
        if because := requeue.refusal(self.job, outcome, idle, config.attempts):
            self.end(FAILED, outcome.stopped_by, because=because)
            print(f"{NOT_REQUEUED}{because}", file=sys.stderr)
            return FAILED
        requests.ignore()
        lost = outcome.lost
        if lost and lost.unreachable:
            scheduler.await_loss(lost.host)
        return self.requeue(outcome.stopped_by or (f"loss of {lost.host}" if lost else None), requests.end)

    def requeue(self, stopped_by: str | None, end: float | None) -> int:
        """Ends the attempt, requeues the job, and returns the exit code.

        A scheduler that is down is asked again until shortly before the job's `end`, in Unix time; without one, for an
        hour.
        """
        self.end(REQUEUE, stopped_by, requeued=True)  # first: Slurm ends this process soon
        if failed := self.job.scheduler.requeue(self.job, (end or time.time() + WITHOUT_END_SECONDS) - SPARE_SECONDS):
            print(f"{NOT_REQUEUED}{failed}", file=sys.stderr)
            self.end(FAILED, stopped_by, because=failed)
            return FAILED
        print(f"{LAUNCH}requeued", file=sys.stderr, flush=True)
        return REQUEUE

    def end(self, code: int, stopped_by: str | None, requeued: bool = False, because: str = "") -> None:
        """Records the end of the attempt; `because` is why the job was not requeued although it should have been."""
        records.append_event(
            self.record,
            event="end",
            attempt=self.number,
            time=time.time(),
            code=code,
            requeued=requeued,
            stopped_by=stopped_by,
            progress=self.call.progress(),
            **({"because": because} if because else {}),
        )


def as_asked(granted: Allocation, nodes: int) -> Allocation:
    """As many hosts as were asked for, also where a PE whose allocation_rule is not a number has granted more."""
    unused = granted.hosts[nodes:]
    if unused:
        names = ", ".join(host.name for host in unused)
        asked = plural(nodes, "node was", "nodes were")
        print(f"{LAUNCH}{asked} asked for, {len(granted.hosts)} granted: without {names}", file=sys.stderr)
    return replace(granted, hosts=granted.hosts[:nodes])


def job_end(config: LaunchConfig, granted: Allocation, began: float) -> float | None:
    """When this job ends at the latest, in Unix time: by its scheduler, or by --time from `began` on; None: never."""
    minute = minutes(config.time, "--time")
    limits = (granted.scheduler.end_time(granted, os.environ), began + 60 * minute if minute else None)
    return min((limit for limit in limits if limit), default=None)


def roots(call: Call[Any]) -> list[Path]:
    """Directories that hold the records of jobs before this one."""
    return list(dict.fromkeys([call.results, *([call.data] if call.data else []), call.results.parent, RUNS]))


@contextmanager
def synced_log(site: Site) -> Iterator[None]:
    """Runs the site's command that makes the log readable from elsewhere, if it has one and there is a log."""
    log = log_path()
    if not site.log_sync or not log:
        yield
        return
    command = [word.replace("{log}", log) for word in shlex.split(site.log_sync)]
    try:
        none = subprocess.DEVNULL
        syncing = subprocess.Popen(command, stdin=none, stdout=none, stderr=none)
    except OSError as error:
        print(f"{LAUNCH}log_sync of site {site.name}: {command[0]}: {error.strerror}", file=sys.stderr)
        yield
        return
    try:
        yield
    finally:
        syncing.terminate()
        syncing.wait()
