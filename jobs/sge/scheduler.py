"""Grid Engine behind the interface of all schedulers. Not part of the plugin, which it uses.

qstat no longer lists a job as soon as it has ended; qacct lags behind, by 15 s as a rule.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.command import SchedulerError, answer
from jobs.hosts.supervisor import Node
from jobs.patience import asked_again
from jobs.preflight import Hint, try_script
from jobs.records import Submission
from jobs.scheduler import Allocation, Host, Job, Request, Scheduler, State, Verdict, array_id
from jobs.sge import qrsh, qstat
from jobs.sge.advice import advise
from jobs.sge.asked import asked_for
from jobs.sge.hostfile import granted_hosts
from jobs.sge.requeue import put_back
from jobs.site import Site
from jobs.submit import submit_with
from shard_tools.base.errors import UserError

LOSS_SECONDS = 400.0
"""A little more than the time, max_unheard, after which Grid Engine gives up hosts where that was not changed."""

_STATES: Mapping[str, State] = {
    "PENDING": "pending",
    "REQUEUED": "pending",
    "HELD": "held",
    "RUNNING": "running",
    "SUSPENDED": "suspended",
    "CANCELLING": "stopping",
    "FAILED": "error",
}
_ENDS: Mapping[str, State] = {
    "COMPLETED": "done",
    "FAILED": "failed",
    "TIMEOUT": "timeout",
    "CANCELLED": "cancelled",
}
_AWAY = re.compile(r"commlib error|unable to (contact|send message to) qmaster|gave no answer")
_HINTS = (
    Hint("unknown queue", "queues", ("qconf", "-sql")),
    Hint("parallel environment", "parallel environments", ("qconf", "-spl")),
    Hint("unknown resource", "consumable complexes", ("qconf", "-sc"), lambda row: row[5:6] != ["NO"]),
)


class GridEngine(Scheduler):
    """Grid Engine, through qsub, qrsh, qstat, qacct, qconf and qdel."""

    name = "sge"
    title = "Grid Engine"
    orders_by_success = False  # -hold_jid lets a job start after any end of the one before

    def is_here(self, environ: Mapping[str, str]) -> bool:
        # PBS and Slurm's wrappers have commands named qsub, too.
        return bool(environ.get("SGE_ROOT")) and shutil.which("qconf") is not None

    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        if not environ.get("PE_HOSTFILE") and not (environ.get("JOB_ID") and environ.get("SGE_TASK_ID")):
            return None
        task = environ.get("SGE_TASK_ID", "undefined")
        job_id = environ.get("JOB_ID", "0") + ("" if task == "undefined" else f".{task}")
        try:
            hosts = tuple(Host(name, slots) for name, slots in granted_hosts(environ).items())
        except ValueError as error:
            raise UserError(str(error)) from None
        return Allocation(scheduler=self, job_id=job_id, hosts=hosts)

    def job_name(self, environ: Mapping[str, str]) -> str:
        return environ.get("JOB_NAME", "")

    def restarts(self, environ: Mapping[str, str]) -> int:
        return int(environ.get("RESTARTED") or 0)

    def submitted(self, allocation: Allocation, environ: Mapping[str, str]) -> tuple[str, str]:
        try:  # the copy that runs
            text = Path(environ["JOB_SCRIPT"]).read_text()
        except (KeyError, OSError, UnicodeDecodeError):
            text = ""
        file = re.search(r"^script_file:\s+(.+)$", _job(allocation), re.MULTILINE)
        return file[1] if file else "", text

    def asked_for(self, allocation: Allocation, environ: Mapping[str, str]) -> Mapping[str, Any]:
        return asked_for(_job(allocation), environ)

    def end_time(self, allocation: Allocation, environ: Mapping[str, str]) -> float | None:
        queue = environ.get("QUEUE")
        answers = [_job(allocation), answer(qstat.call, "qconf", "-sq", queue) if queue else ""]
        limits = [limit for limit in map(time_limit, answers) if limit]
        return _started(environ) + min(limits) if limits else None

    def gpu_variable(self, site: Site) -> str:
        return f"SGE_HGR_{site.gpu}" if site.gpu else ""  # Univa's

    def is_cancelled(self, allocation: Allocation, stopped_by: str | None) -> bool:
        """Whether qdel was called for it; where qstat does not answer, USR2 counts as qdel's notice."""
        try:
            job = qstat.query().get(allocation.job_id)
        except SchedulerError:
            return stopped_by == "SIGUSR2"
        return not job or job.state == "CANCELLING"

    def requeue(self, allocation: Allocation, until: float) -> str:
        # 99 alone puts back a job of one host, and, without the hosts that it had, one of several.
        if len(allocation.hosts) > 1 and (because := asked_again(put_back, _is_away, until)):
            print(f"launch: left to exit code 99, which may not use the same hosts again: {because}", file=sys.stderr)
        return ""

    def await_loss(self, host: str) -> None:
        """Waits for at most LOSS_SECONDS."""
        deadline = time.monotonic() + LOSS_SECONDS
        while time.monotonic() < deadline and not is_unknown(answer(qstat.call, "qhost", "-h", host), host):
            time.sleep(2)

    def node_on(
        self, host: Host, index: int, command: Sequence[str], directory: str, environ: Mapping[str, str]
    ) -> Node:
        if index == 0:
            return super().node_on(host, index, command, directory, environ)
        leaving = list(granted_hosts(os.environ)) if index == 1 else []
        argv = qrsh.on_host(host.name, command, directory, leaving)
        changed: dict[str, str | None] = {**qrsh.of_this_host(os.environ), **environ}
        return Node(host=host.name, argv=argv, environ=changed, read_exit=qrsh.read_exit)

    def try_on_host(self, host: str) -> str:
        return f"qrsh -inherit -V {host} hostname"

    def check(self, request: Request, record: Path) -> Verdict:
        from jobs.sge.request import command, script, unlike_the_complex  # submitit takes long to import

        text = script(request, record)

        def asking(file: str) -> list[str]:
            program, *options = command(request, record, file)
            return [program, "-w", "v", *options]

        answer = try_script(self.title, request.name, text, asking, _HINTS)
        unlike = unlike_the_complex(request)
        return Verdict(answer, (unlike,) if unlike else ())

    def preview(self, request: Request, record: Path) -> str:
        from jobs.sge.request import command, script

        return f"{script(request, record)}# {shlex.join(command(request, record, 'job.sh'))}\n"

    def submit(
        self, request: Request, record: Path, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
    ) -> tuple[list[str], Path]:
        from jobs.sge.executor import SgeExecutor
        from jobs.sge.request import parameters

        executor = SgeExecutor(record, python=request.site.launcher_python)
        executor.update_parameters(**parameters(request))
        ids, file = submit_with(executor, self.title, request, task, arguments)
        return [job_id.replace("_", ".") for job_id in ids], file  # submitit's 12_3 is Grid Engine's 12.3

    def query(self) -> dict[str, Job]:
        return {job_id: _of_qstat(job) for job_id, job in qstat.query().items()}

    def ended(self, job_ids: Collection[str], since: float) -> dict[str, Job]:
        if not job_ids:
            return {}
        records = qstat.ended(job_id=next(iter(job_ids))) if len(job_ids) == 1 else qstat.ended(since=since)
        return {
            job_id: _of_qacct(record) for job_id, record in records.items() if {job_id, array_id(job_id)} & {*job_ids}
        }

    def details(self, job_id: str) -> tuple[str, ...]:
        job = _queued(job_id)
        if not job or job.starts or job.state not in ("PENDING", "REQUEUED", "FAILED"):
            return ()
        return qstat.why([job_id]).get(job_id, ())

    def advice(self, job_id: str, reason: str, details: Sequence[str]) -> str:
        job = _queued(job_id)
        if not job:
            return ""
        away = bool(job.host) and is_unknown(answer(qstat.call, "qhost", "-h", job.host), job.host)
        return advise(replace(job, job_id=job_id), away, bool(details))

    def cancel(self, job_id: str) -> str:
        qstat.call("qdel", job_id)
        return f"cancelled job {job_id}"

    def without_trace(self, submission: Submission) -> tuple[str, str]:
        if submission.attempts or Path(submission.log).exists():
            return super().without_trace(submission)
        # qdel alone takes off the queue what waits, and accounting has nothing of it.
        return "cancelled", "deleted before it started, as by qdel"


def time_limit(text: str) -> float | None:
    """The seconds of h_rt that `qstat -j` or `qconf -sq` print; None without one."""
    found = re.search(r"^(?:hard resource_list:.*\bh_rt=|h_rt\s+)([\d:]+)", text, re.MULTILINE)
    if not found:
        return None
    seconds = 0.0
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part or 0)
    return seconds


def is_unknown(listing: str, host: str) -> bool:
    """Whether `qhost` has no load of a host."""
    rows = (line.split() for line in listing.splitlines())
    return any(row[0].partition(".")[0] == host.partition(".")[0] and row[6] == "-" for row in rows if len(row) > 6)


def _is_away(error: str) -> bool:
    """Whether a command failed because qmaster is down, busy, or being replaced by another."""
    return _AWAY.search(error) is not None


def _queued(job_id: str) -> qstat.Job | None:
    """A job, or the first task of an array, as it waits or runs now."""
    jobs = qstat.query()
    tasks = (job for task, job in jobs.items() if task.partition(".")[0] == job_id)
    return jobs.get(job_id) or next(tasks, None)


def _started(environ: Mapping[str, str]) -> float:
    """When this attempt of the job began, in Unix time: as its shepherd did, or now."""
    try:
        return (Path(environ["SGE_JOB_SPOOL_DIR"]) / "pid").stat().st_mtime
    except (KeyError, OSError):
        return time.time()


def _job(allocation: Allocation) -> str:
    return answer(qstat.call, "qstat", "-j", allocation.job_id.partition(".")[0])


def _of_qstat(job: qstat.Job) -> Job:
    state: State = "pending" if job.starts else _STATES[job.state]
    reason = f"{job.letters}: {job.reason}" if job.reason else job.letters if state == "error" else ""
    if job.starts:
        reason = f"being handed to {job.host}"
    elif state == "held":
        reason = f"after {', '.join(job.after)}" if job.after else "on hold"
    start = job.time if state in ("running", "suspended", "stopping") else None
    return Job(job_id=job.job_id, state=state, reason=reason, name=job.name, hosts=job.host, start=start)


def _of_qacct(record: qstat.Record) -> Job:
    return Job(
        job_id=record.job_id,
        state=_ENDS[record.state],
        reason=record.reason,
        name=record.name,
        hosts=record.host,
        start=record.start,
        max_memory=record.maxvmem,
    )
