"""What a scheduler says of all of this user's jobs at once: one squeue or qstat, and accounting for those that ended.

Slurm forgets an ended job after MinJobAge, 5 minutes by default; until then squeue has it, as scontrol does. After
that only sacct knows, where there is an accounting database. Grid Engine's qstat forgets at once; qacct lags behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from jobs.sge import qstat

State = Literal[
    "pending", "held", "running", "suspended", "stopping", "error", "done", "failed", "cancelled", "timeout"
]

LIVE = frozenset({"pending", "held", "running", "suspended", "stopping", "error"})
"""States of jobs that have not ended. Grid Engine keeps one in error until a person helps."""

_SECONDS = 30
_FIELDS = "%i|%A|%T|%L|%S|%N|%r|%j"
_ACCOUNTED = "JobID,JobIDRaw,State,ExitCode,NodeList,Reason,JobName"

_SLURM_STATES: Mapping[str, State] = {
    "PENDING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_FED": "pending",
    "CONFIGURING": "pending",
    "REQUEUE_HOLD": "held",
    "SPECIAL_EXIT": "held",
    "RESV_DEL_HOLD": "held",
    "RUNNING": "running",
    "RESIZING": "running",
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
    "COMPLETING": "stopping",
    "SIGNALING": "stopping",
    "STAGE_OUT": "stopping",
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
}
SLURM_FAILURES: Mapping[str, str] = {
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node lost",
    "BOOT_FAIL": "node did not start",
    "PREEMPTED": "preempted",
}
"""Slurm's states of jobs that failed through no word of their own, and what they mean."""
_SGE_STATES: Mapping[str, State] = {
    "PENDING": "pending",
    "REQUEUED": "pending",
    "HELD": "held",
    "RUNNING": "running",
    "SUSPENDED": "suspended",
    "CANCELLING": "stopping",
    "FAILED": "error",
}
_SGE_ENDS: Mapping[str, State] = {
    "COMPLETED": "done",
    "FAILED": "failed",
    "TIMEOUT": "timeout",
    "CANCELLED": "cancelled",
}


class QueueError(RuntimeError):
    """A scheduler's command is missing, failed, or gave no answer in time; one line for a person."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, or one task of an array, as the scheduler has it."""

    job_id: str
    """As the scheduler's commands take it: `12`, of an array `12_3` (Slurm) or `12.3` (Grid Engine)."""
    state: State
    reason: str = ""
    """Why it waits or failed, in the scheduler's words; empty if there is nothing to say."""
    name: str = ""
    hosts: str = ""
    """Where it runs or ran, as `node[1-2]`; of Grid Engine the first host alone."""
    start: float | None = None
    """Unix time when it started, or is expected to."""
    left: float | None = None
    """Seconds of its time limit that are left."""
    max_memory: int = 0
    """The most that it held, bytes; 0 is unknown."""


def query(scheduler: str) -> dict[str, Job]:
    """This user's jobs by id, in one call: all that wait or run, of Slurm those that ended lately, too.

    A task of a Slurm array comes under its own number as well. Raises QueueError.
    """
    if scheduler == "slurm":
        return parse_squeue(_call("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", _FIELDS))
    try:
        found = qstat.query()
    except qstat.GridEngineError as error:
        raise QueueError(str(error)) from None
    return {job_id: _of_qstat(job) for job_id, job in found.items()}


def ended(scheduler: str, job_ids: Collection[str], since: float) -> dict[str, Job]:
    """What accounting says of jobs that `query` did not have, by id, in one call; without those it does not know.

    All began after `since`, Unix time. Raises QueueError.
    """
    if not job_ids:
        return {}
    if scheduler == "slurm":
        try:
            text = _call("sacct", "-X", "-n", "-P", "-o", _ACCOUNTED, "-j", ",".join(job_ids))
        except QueueError as error:
            if "accounting storage is disabled" in str(error):
                return {}
            raise
        return {job_id: job for job_id, job in parse_sacct(text).items() if job.state not in LIVE}
    try:
        records = qstat.ended(since=since)
    except qstat.GridEngineError as error:
        raise QueueError(str(error)) from None
    return {job_id: _of_qacct(record) for job_id, record in records.items() if job_id in job_ids}


def details(scheduler: str, job_id: str) -> tuple[str, ...]:
    """What more the scheduler says of one job that waits, is in error, or ended: lines; none if it is gone.

    Raises QueueError.
    """
    if scheduler == "slurm":
        try:
            return parse_scontrol(_call("scontrol", "-o", "show", "job", job_id))
        except QueueError as error:
            if "Invalid job id" in str(error):
                return ()
            raise
    try:
        return qstat.why([job_id]).get(job_id, ())
    except qstat.GridEngineError as error:
        raise QueueError(str(error)) from None


def cancel(scheduler: str, job_id: str) -> None:
    """Takes a job off the queue, or ends it. Raises QueueError, with the scheduler's words, if it does not obey."""
    _call("scancel" if scheduler == "slurm" else "qdel", job_id)


def parse_squeue(text: str) -> dict[str, Job]:
    """The jobs of `squeue -h -r -o` with the fields above, by id."""
    found: dict[str, Job] = {}
    for line in text.splitlines():
        job_id, number, word, left, start, hosts, reason, name = line.split("|", 7)
        state, why = slurm_state(word, reason)
        job = Job(
            job_id=job_id,
            state=state,
            reason=why,
            name=name,
            hosts=hosts,
            start=_time(start),
            left=_seconds(left) if state in ("running", "suspended") else None,
        )
        if "_" in job_id or number not in found:  # pending tasks of an array share its number
            found[job_id] = job
            found.setdefault(number, job)
    return found


def parse_sacct(text: str) -> dict[str, Job]:
    """The jobs of `sacct -X -n -P -o` with the fields above, by id."""
    found: dict[str, Job] = {}
    for line in text.splitlines():
        job_id, number, word, code, hosts, reason, name = line.split("|", 6)
        state, why = slurm_state(word, reason)
        if state == "failed" and word == "FAILED":
            why = exit_words(code)
        job = Job(job_id=job_id, state=state, reason=why, name=name, hosts="" if hosts == "None assigned" else hosts)
        found[job_id] = found[number] = job
    return found


def parse_scontrol(text: str) -> tuple[str, ...]:
    """What `scontrol -o show job` says beyond squeue: what it depends on, its exit code, where and when."""
    said = dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(\S*)", text.partition("\n")[0]))
    lines = []
    if said.get("Dependency", "(null)") != "(null)":
        lines.append(f"depends on {said['Dependency']}")
    if said.get("JobState") == "PENDING" and said.get("StartTime", "Unknown") not in ("Unknown", "N/A"):
        lines.append(f"expected to start at {said['StartTime']}")
    if said.get("JobState") == "TIMEOUT":
        lines.append(f"its time limit was {said.get('TimeLimit')}")
    elif said.get("ExitCode", "0:0") != "0:0":
        lines.append(exit_words(said["ExitCode"]))
    return tuple(lines)


def slurm_state(word: str, reason: str) -> tuple[State, str]:
    """The state that Slurm's word for it means, and the reason if it tells anything."""
    word = word.split()[0].rstrip("+")  # CANCELLED by 1000
    state = _SLURM_STATES.get(word, "failed")
    if state == "pending" and reason.startswith("JobHeld"):
        state = "held"
    if word in SLURM_FAILURES:
        return state, SLURM_FAILURES[word]
    if state == "timeout":
        return state, "time limit"
    if state == "cancelled":  # a reason from while it waited may stay behind
        return state, reason if reason == "DependencyNeverSatisfied" else ""
    return state, "" if reason in ("None", "") or state in ("running", "done") else reason


def exit_words(code: str) -> str:
    """Slurm's `3:0` or `0:9` in words: exit code 3, killed by SIGKILL."""
    status, _, number = code.partition(":")
    if number in ("", "0"):
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(int(number)).name}"
    except ValueError:
        return f"killed by signal {number}"


def _of_qstat(job: qstat.Job) -> Job:
    state = _SGE_STATES[job.state]
    reason = f"{job.letters}: {job.reason}" if job.reason else job.letters if state == "error" else ""
    start = job.time if state in ("running", "suspended", "stopping") else None
    return Job(job_id=job.job_id, state=state, reason=reason, name=job.name, hosts=job.host, start=start)


def _of_qacct(record: qstat.Record) -> Job:
    return Job(
        job_id=record.job_id,
        state=_SGE_ENDS[record.state],
        reason=record.reason,
        name=record.name,
        hosts=record.host,
        start=record.start,
        max_memory=record.maxvmem,
    )


def _call(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SLURM_TIME_FORMAT": "standard"},
        )
    except FileNotFoundError:
        raise QueueError(f"there is no {command[0]} here: log in to a machine of the cluster") from None
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command[0]} gave no answer in {_SECONDS} s: the scheduler seems to be down") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0].removeprefix(f"{command[0]}: ")
        raise QueueError(f"{command[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # N/A
        return None


def _seconds(text: str) -> float | None:
    # 2-03:04:05, 3:04:05, 4:05; UNLIMITED, INVALID (the limit has passed), NOT_SET
    days, _, clock = text.rpartition("-")
    if not re.fullmatch(r"\d+(:\d+)*", clock):
        return None
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return float(int(days or 0) * 86400 + seconds)
