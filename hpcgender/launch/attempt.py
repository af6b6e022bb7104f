"""One attempt of a job: runs a command on the hosts around this process, keeps its record, requeues the job."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hpcgender.commands.launch import LaunchConfig, minutes
from hpcgender.launch import CODE, RECORD
from hpcgender.launch.agents import Layout, make_layout, run_layout
from hpcgender.log_lines import LAUNCH, NOT_REQUEUED
from jobs import records, requeue
from jobs.agent import PORT_TAKEN
from jobs.records import Resources, Submission
from jobs.scheduler import Allocation
from jobs.site import Site
from jobs.stopping import Limit, StopRequests, margin
from shard_tools.base.commands import RUNS, Call
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE, UserError
from shard_tools.manifest import manifest_sha256


def run(config: LaunchConfig, call: Call[Any], site: Site, granted: Allocation, name: str = "") -> int:
    """Runs the command to its end, or to the end of this attempt, and returns its exit code.

    In a job, 99 means that the job is requeued; then the next attempt resumes. `name` is the job's in a record that is
    made here; default: the command's and its results'. Raises UserError for what can be checked beforehand.
    """
    with StopRequests() as requests:
        scheduler = granted.scheduler
        record = find_record(call, granted)
        events = records.read_events(record) if record else []
        if events:
            call = call.resumed()
        layout = make_layout(config, call, site, granted, os.environ)
        if not scheduler.orders_by_success and (because := requeue.unmet(scheduler, config.ancestors, roots(call))):
            record = record or write_record(config, call, layout, site, None, name)
            records.append_event(record, event="skipped", because=because, time=time.time())
            print(f"{LAUNCH}not started, because {because}", file=sys.stderr)
            return FAILED
        try:
            call.check()
        except UserError as error:
            if record:
                end_before_start(record, call, BAD_INPUT, str(error))
            raise
        end_time = partial(job_end, config, granted, time.time())
        limit = end_time()
        record = record or write_record(config, call, layout, site, limit, name)
        idle = requeue.idle_attempts(events, call.progress()) if events else 0
        if idle >= config.attempts:  # its nodes were lost: an attempt that ends in order finds out itself
            end_before_start(record, call, FAILED, because := f"{idle} attempts without progress")
            print(f"{LAUNCH}given up: {because}", file=sys.stderr)
            return FAILED
        if limit:
            requests.watch(Limit(end_time, margin(limit - time.time())))
        submission, hosts = records.read_submission(record), len(layout.allocation.hosts)
        if submission and hosts < submission.resources.nodes:  # of a PE whose allocation_rule is not a number
            wanted = submission.resources.nodes
            print(f"{LAUNCH}{wanted} nodes were asked for, {hosts} granted: continuing with these", file=sys.stderr)
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
        return self.requeue(outcome.stopped_by or (f"loss of {lost.host}" if lost else None))

    def requeue(self, stopped_by: str | None) -> int:
        """Ends the attempt, requeues the job, and returns the exit code."""
        self.end(REQUEUE, stopped_by, requeued=True)  # first: Slurm ends this process soon
        print(f"{LAUNCH}requeued", file=sys.stderr, flush=True)
        if failed := self.job.scheduler.requeue(self.job):
            print(f"{NOT_REQUEUED}{failed}", file=sys.stderr)
            self.end(FAILED, stopped_by, because=failed)
            return FAILED
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


def job_end(config: LaunchConfig, granted: Allocation, began: float) -> float | None:
    """When this job ends at the latest, in Unix time: by its scheduler, or by --time from `began` on; None: never."""
    minute = minutes(config.time, "--time")
    limits = (granted.scheduler.end_time(granted, os.environ), began + 60 * minute if minute else None)
    return min((limit for limit in limits if limit), default=None)


def end_before_start(record: Path, call: Call[Any], code: int, because: str) -> None:
    """Records that an attempt ended before it began, and why."""
    end = {"event": "end", "attempt": None, "stopped_by": None, "requeued": False, "code": code, "because": because}
    records.append_event(record, **end, time=time.time(), progress=call.progress())


def find_record(call: Call[Any], job: Allocation) -> Path | None:
    """This job's record: of its submission, or of an earlier attempt; None if there is none yet."""
    submitted = os.environ.pop(RECORD, "")
    if not job.scheduler.has_queue:
        return None
    if submitted:
        record = Path(f"{submitted}-{job.job_id}")
        for log in record.glob(f"{job.job_id}_0_log.*"):  # submitit's, which nothing is written to
            log.unlink()
        return record
    return records.find_record(call.results, job.job_id)


def roots(call: Call[Any]) -> list[Path]:
    """Directories that hold the records of jobs before this one."""
    return list(dict.fromkeys([call.results, *([call.data] if call.data else []), call.results.parent, RUNS]))


def write_record(
    config: LaunchConfig, call: Call[Any], layout: Layout, site: Site, limit: float | None, name: str
) -> Path:
    """Writes the record of a job that a person started with qsub, sbatch or bash."""
    job = layout.allocation
    file, text = job.scheduler.submitted(job, os.environ)
    granted = Resources(
        nodes=len(job.hosts),
        procs_per_node=layout.procs_per_node,
        gpus_per_node=layout.gpus_per_node,
        cpus=job.hosts[0].cpus,
        time_min=round((limit - time.time()) / 60, 1) if limit else 0.0,
    )
    argv = tuple(sys.orig_argv)
    directory = call.results / SUBMISSIONS / f"{records.stamp()}-{job.job_id}"
    submission = Submission(
        name=job.scheduler.job_name(os.environ) or name or call.job_name,
        command=call.words,
        argv=argv,
        script=file,
        scheduler=job.scheduler.name,
        job_id=job.job_id,
        site=site.plain(),
        resources=granted,
        after=config.ancestors,
        log=log_path(),
        revision=records.revision(CODE),
        manifest=manifest_sha256(call.data),
        directory=directory,
        **records.who_and_where(),
    )
    try:
        records.write_submission(submission, text or f"{shlex.join(argv)}\n", os.environ, CODE)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror}") from None
    return directory


def log_path() -> str:
    """The file that standard output goes to; empty if it is none."""
    try:
        path = Path("/proc/self/fd/1").readlink()
    except OSError:
        return ""
    return str(path) if path.is_file() else ""


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
