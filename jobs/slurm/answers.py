"""The output of squeue, sacct and scontrol as jobs, and the meaning of Slurm's states and reasons."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from datetime import datetime

from jobs.scheduler import Job, State

FIELDS = "%i|%A|%T|%L|%S|%N|%r|%j"
"""What `parse_squeue` reads, as squeue -o takes it."""

ACCOUNTED = "JobID,JobIDRaw,State,ExitCode,NodeList,Reason,JobName"
"""What `parse_sacct` reads, as sacct -o takes it."""

_STATES: Mapping[str, State] = {
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
_FAILURES: Mapping[str, str] = {
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node lost",
    "BOOT_FAIL": "node did not start",
    "PREEMPTED": "preempted",
}
"""States of jobs that were ended from outside, and what they mean."""

REASONS = {
    "Priority": "jobs of higher priority go first",
    "Resources": "it is next; what it asks for is in use",
    "Dependency": "it waits for the jobs before it",
    "DependencyNeverSatisfied": "a job before it did not succeed, so it will never start: cancel it",
    "JobHeldUser": "you hold it: scontrol release {job} lets it go",
    "JobHeldAdmin": "an administrator holds it: ask them",
    "BeginTime": "it may not begin yet; after a requeue that is two minutes",
    "BadConstraints": "no node fits its constraints: cancel it, and request others",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives a job, and will not start: ask for fewer",
    "PartitionTimeLimit": "it asks for more time than the partition gives a job, and will not start: ask for less",
    "PartitionDown": "the partition is closed at present",
    "PartitionInactive": "the partition is closed at present",
    "ReqNodeNotAvail": "a node that it needs is down, reserved, or soon in maintenance: a shorter time limit may help",
    "Nodes required": "nodes that it needs are down, drained or reserved",
    "QOS": "a limit of your quality of service is reached: it waits for your other jobs",
    "Assoc": "a limit of your account is reached: it waits for its other jobs",
    "MaxJobs": "you have as many jobs as you may: it waits for the others",
    "launch failed": "it could not be started and is held: scontrol release {job} tries again",
}
"""What the reasons of waiting jobs mean, by how they begin: the longest that fits counts."""


def parse_squeue(text: str) -> dict[str, Job]:
    """The jobs of `squeue -h -r -o` with the fields above, by id."""
    found: dict[str, Job] = {}
    for line in text.splitlines():
        job_id, number, word, left, start, hosts, reason, name = line.split("|", 7)
        state, why = read_state(word, reason)
        job = Job(
            job_id=job_id,
            state=state,
            reason=why,
            external=_is_external(word),
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
        state, why = read_state(word, reason)
        if state == "failed" and word == "FAILED":
            why = exit_words(code)
        job = Job(
            job_id=job_id,
            state=state,
            reason=why,
            external=_is_external(word),
            name=name,
            hosts="" if hosts == "None assigned" else hosts,
        )
        found[job_id] = found[number] = job
    return found


def parse_scontrol(text: str) -> tuple[str, ...]:
    """What `scontrol -o show job` has beyond squeue: what it depends on, its exit code, where and when."""
    fields = dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(\S*)", text.partition("\n")[0]))
    lines = []
    if fields.get("Dependency", "(null)") != "(null)":
        lines.append(f"depends on {fields['Dependency']}")
    if fields.get("JobState") == "PENDING" and fields.get("StartTime", "Unknown") not in ("Unknown", "N/A"):
        lines.append(f"expected to start at {fields['StartTime']}")
    if fields.get("JobState") == "TIMEOUT":
        lines.append(f"its time limit was {fields.get('TimeLimit')}")
    elif fields.get("ExitCode", "0:0") != "0:0":
        lines.append(exit_words(fields["ExitCode"]))
    return tuple(lines)


def read_state(word: str, reason: str) -> tuple[State, str]:
    """The state that Slurm's name of it means, and the reason if there is one."""
    word = _bare(word)
    state = _STATES.get(word, "failed")
    if state == "pending" and reason.startswith("JobHeld"):
        state = "held"
    if word in _FAILURES:
        return state, _FAILURES[word]
    if state == "timeout":
        return state, "time limit"
    if state == "cancelled":  # a reason from while it waited may stay behind
        return state, reason if reason == "DependencyNeverSatisfied" else ""
    return state, "" if reason in ("None", "") or state in ("running", "done") else reason


def _bare(word: str) -> str:
    return word.split()[0].rstrip("+")  # CANCELLED by 1000


def _is_external(word: str) -> bool:
    return _bare(word) in _FAILURES


def exit_words(code: str) -> str:
    """Slurm's `3:0` or `0:9` in words: exit code 3, killed by SIGKILL."""
    status, _, number = code.partition(":")
    if number in ("", "0"):
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(int(number)).name}"
    except ValueError:
        return f"killed by signal {number}"


def end_time(job: str) -> float | None:
    """EndTime of `scontrol show job`, in Unix time; None if it has none."""
    found = re.search(r"\bEndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", job)
    return datetime.fromisoformat(found[1]).timestamp() if found else None


def meaning(job_id: str, reason: str) -> str:
    """What a reason means in plain words; empty if it is none of the known ones."""
    fits = [begin for begin in REASONS if reason.startswith(begin)]
    return REASONS[max(fits, key=len)].format(job=job_id) if fits else ""


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
