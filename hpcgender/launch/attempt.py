"""Runs the command where it is: on the hosts of the job around it, or on this machine; and keeps its record."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch.agents import run_plan
from hpcgender.launch.plan import Plan, make_plan
from hpcgender.launch.work import RUNS, Work, find_work
from jobs import records, requeue
from jobs.agent import PORT_TAKEN
from jobs.records import Resources, Submission
from jobs.site import Site
from jobs.stopping import Limit, StopRequests, margin
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE, UserError

RECORD = "HPCGENDER_RECORD"
"""The environment variable with which a job that was submitted from here is told where its record is."""

CODE = Path(__file__).resolve().parents[2]


def run(config: LaunchConfig, site: Site) -> int:
    """Runs the command to its end, or to the end of this attempt, and returns its exit code.

    In a job, 99 means that the job goes back into the queue. Raises UserError for what can be known beforehand.
    """
    with StopRequests() as requests:
        work = find_work(config.command, check=False)
        plan = make_plan(config, work, site, os.environ)
        record = find_record(work, plan)
        events = records.read_events(record) if record else []
        scheduler = plan.allocation.scheduler
        if not scheduler.orders_by_success and (because := requeue.unmet(scheduler, config.ancestors, roots(work))):
            record = record or write_record(config, work, plan, site, None)
            records.append_event(record, event="skipped", because=because, time=time.time())
            print(f"launch: not started, because {because}", file=sys.stderr)
            return FAILED
        if events and work.title == "train" and not work.options.resume:
            work = find_work((*config.command, "--resume"), check=False)  # requeued: the run is there
            plan = make_plan(config, work, site, os.environ)
        try:
            if hasattr(work.options, "check"):
                work.options.check()
        except UserError as error:
            if record:
                end_before_start(record, work, BAD_INPUT, str(error))
            raise
        limit = scheduler.end_time(plan.allocation, os.environ)
        record = record or write_record(config, work, plan, site, limit)
        idle = requeue.idle_attempts(events, work.progress())
        if idle >= config.attempts:  # by the loss of its nodes; who ends in good order knows before
            end_before_start(record, work, FAILED, because := f"{idle} attempts without progress")
            print(f"launch: given up: {because}", file=sys.stderr)
            return FAILED
        if limit:
            ask = lambda: scheduler.end_time(plan.allocation, os.environ)  # noqa: E731
            requests.watch(Limit(ask, margin(limit - time.time())))
        wanted = getattr(records.read_submission(record), "resources", Resources()).nodes
        granted = len(plan.allocation.hosts)
        if granted < wanted:  # as a PE may whose allocation_rule is no number: fewer processes see the same batches
            print(f"launch: {wanted} nodes were asked for, {granted} granted: going on with these", file=sys.stderr)
        with synced_log(site):
            return Attempt(work, plan, record).run(config, requests)


class Attempt:
    """One attempt of a job, and what its record says of it."""

    def __init__(self, work: Work, plan: Plan, record: Path) -> None:
        self.work = work
        self.plan = plan
        self.record = record
        self.number = sum(event["event"] == "start" for event in records.read_events(record)) + 1
        records.append_event(
            record,
            event="start",
            attempt=self.number,
            job_id=plan.allocation.job_id,
            restart=plan.allocation.scheduler.restarts(os.environ),
            hosts=[host.name for host in plan.allocation.hosts],
            time=time.time(),
            progress=work.progress(),
        )

    def run(self, config: LaunchConfig, requests: StopRequests) -> int:
        """Runs the plan, writes what became of it, and puts the job back if it is not done; returns the exit code."""
        outcome = run_plan(self.plan, requests)
        code = FAILED if outcome.code == PORT_TAKEN else outcome.code
        scheduler = self.plan.allocation.scheduler
        if not requeue.wants_requeue(outcome) or not scheduler.has_queue:
            self.end(code, outcome.stopped_by)
            return code
        if scheduler.is_requeued(self.plan.allocation, os.environ):
            requests.ignore()
            self.end(REQUEUE, outcome.stopped_by, requeued=True)
            print(f"launch: requeued by {scheduler.title}", file=sys.stderr, flush=True)
            return REQUEUE
        idle = requeue.idle_attempts(records.read_events(self.record), self.work.progress())
        if because := requeue.refusal(self.plan.allocation, outcome, idle, config.attempts):
            self.end(FAILED, outcome.stopped_by, because=because)
            print(f"launch: not requeued: {because}", file=sys.stderr)
            return FAILED
        requests.ignore()
        lost = outcome.lost
        if lost and lost.unreachable:
            scheduler.await_loss(lost.host)
        return self.put_back(outcome.stopped_by or (f"loss of {lost.host}" if lost else None))

    def put_back(self, stopped_by: str | None) -> int:
        """Ends the attempt, puts the job back into the queue, and returns the exit code."""
        self.end(REQUEUE, stopped_by, requeued=True)  # first: Slurm ends this process soon
        print("launch: requeued", file=sys.stderr, flush=True)
        if failed := self.plan.allocation.scheduler.requeue(self.plan.allocation):
            print(f"launch: not requeued: {failed}", file=sys.stderr)
            self.end(FAILED, stopped_by, because=failed)
            return FAILED
        return REQUEUE

    def end(self, code: int, stopped_by: str | None, requeued: bool = False, because: str = "") -> None:
        """Writes that the attempt has ended; `because` says why it was not put back although it should have been."""
        records.append_event(
            self.record,
            event="end",
            attempt=self.number,
            time=time.time(),
            code=code,
            requeued=requeued,
            stopped_by=stopped_by,
            progress=self.work.progress(),
            **({"because": because} if because else {}),
        )


def end_before_start(record: Path, work: Work, code: int, because: str) -> None:
    """Notes that an attempt ended before it began, and why."""
    end = {"event": "end", "attempt": None, "stopped_by": None, "requeued": False, "code": code, "because": because}
    records.append_event(record, **end, time=time.time(), progress=work.progress())


def find_record(work: Work, plan: Plan) -> Path | None:
    """This job's record: the one that its submission says, or that an earlier attempt made; None if there is none."""
    if said := os.environ.pop(RECORD, ""):
        return Path(said)
    job = plan.allocation
    return records.find_record(work.results, job.job_id) if job.scheduler.has_queue else None


def roots(work: Work) -> list[Path]:
    """Where the records of jobs before this one are."""
    return list(dict.fromkeys([work.results, *([work.data] if work.data else []), work.results.parent, RUNS]))


def write_record(config: LaunchConfig, work: Work, plan: Plan, site: Site, limit: float | None) -> Path:
    """The record of a job that a person started with qsub, sbatch or bash."""
    job = plan.allocation
    file, text = job.scheduler.submitted(job, os.environ)
    granted = Resources(
        nodes=len(job.hosts),
        procs_per_node=plan.procs_per_node,
        gpus_per_node=plan.gpus_per_node,
        cpus=job.hosts[0].cpus,
        time_min=round((limit - time.time()) / 60, 1) if limit else 0.0,
    )
    argv = tuple(sys.orig_argv)
    directory = work.results / SUBMISSIONS / f"{records.stamp()}-{job.job_id}"
    submission = Submission(
        name=job.scheduler.job_name(os.environ) or config.job_name or work.job_name,
        command=work.command,
        argv=argv,
        script=file,
        scheduler=job.scheduler.name,
        job_id=job.job_id,
        site=site.plain(),
        resources=granted,
        after=config.ancestors,
        log=log_path(),
        revision=records.revision(CODE),
        manifest=work.manifest_sha256,
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
    """Runs the site's command that lets the log be read from elsewhere, if it has one and there is a log."""
    log = log_path()
    if not site.log_sync or not log:
        yield
        return
    command = [word.replace("{log}", log) for word in shlex.split(site.log_sync)]
    try:
        none = subprocess.DEVNULL
        syncing = subprocess.Popen(command, stdin=none, stdout=none, stderr=none)
    except OSError as error:
        print(f"launch: log_sync of site {site.name}: {command[0]}: {error.strerror}", file=sys.stderr)
        yield
        return
    try:
        yield
    finally:
        syncing.terminate()
        syncing.wait()


def local_chain(config: LaunchConfig, works: list[Work], site: Site) -> int:
    """Runs one command after the other here, as long as each succeeds."""
    for work in works:
        if code := run(dataclasses.replace(config, command=work.command, chain="", job_name=""), site):
            return code
    return 0


def preview(config: LaunchConfig, site: Site, environ: Mapping[str, str]) -> str:
    """What `run` would start, for a person."""
    plan = make_plan(config, find_work(config.command), site, environ)
    names = ", ".join(dict.fromkeys(host.name for host in plan.allocation.hosts))
    return (
        f"{len(plan.allocation.hosts)} nodes ({names}) with {plan.procs_per_node} processes each: "
        f"{shlex.join((*plan.python, *plan.ranks))}"
    )
