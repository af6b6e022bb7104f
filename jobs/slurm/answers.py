"""The output of squeue, sacct and scontrol as jobs, and the meaning of Slurm's states and reasons."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.command import reads
from jobs.hosts.processes import exit_words
from jobs.scheduler import Job, State

FIELDS = "%i|%T|%L|%S|%N|%r|%j"
"""What `parse_squeue` reads, as squeue -o takes it."""

ACCOUNTED = "JobID,State,ExitCode,NodeList,Reason,Start,JobName"
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

_MEANWHILE: Mapping[str, str] = {
    "SUSPENDED": "its processes are stopped, and keep their memory: they go on when jobs of higher priority have "
    "ended, or after scontrol resume {job}, which administrators may call",
    "COMPLETING": "its processes are being ended; a job that stays so is on a node that does not answer: tell an "
    "administrator",
}
"""What states of jobs that neither wait nor work mean."""

_KILLERS = (signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
"""Signals by which a shell's command may have been killed, so that the shell has ended with 128 more."""

_NO_OUTPUT = "53"  # the place of the signal in a job whose --output slurmd cannot open

REASONS = {
    "Priority": "jobs of higher priority go first",
    "Resources": "it is next; what it asks for is in use",
    "JobArrayTaskLimit": "as many tasks of its array run as may at once: the number after % in --array",
    "Dependency": "it waits for the jobs before it",
    "DependencyNeverSatisfied": "a job before it did not succeed, so it will never start: cancel it",
    "JobHeldUser": "you hold it: scontrol release {job} lets it go",
    "JobHeldAdmin": "an administrator holds it: ask them",
    "JobHoldMaxRequeue": "it was requeued too often and is held: scontrol release {job} lets it go",
    "job requeued in held state": "it is held: scontrol release {job} lets it go",
    "BeginTime": "it may not begin yet; after a requeue that is two minutes",
    "BadConstraints": "no node fits its constraints: cancel it, and request others",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives a job, and will not start: ask for fewer",
    "PartitionTimeLimit": "it asks for more time than the partition gives a job, and will not start: ask for less",
    "PartitionDown": "the partition is closed at present",
    "PartitionInactive": "the partition is closed at present",
    "ReqNodeNotAvail": "a node that it needs is down, reserved, or soon in maintenance: a shorter time limit may help",
    "Nodes required": "nodes that it needs are down, drained or reserved",
    "QOS": "your other jobs of this quality of service leave it too little of what you may have",
    "QOSGrp": "the other jobs of this quality of service leave it too little of what all may have together",
    "Assoc": "your other jobs in this account leave it too little of what you may have",
    "AssocGrp": "the other jobs of this account leave it too little of what all may have together",
    "MaxJobs": "you have as many jobs as you may: it waits for the others",
    "launch failed": "it could not be started and is held: scontrol release {job} tries again",
}
"""What the reasons of waiting jobs mean, by how they begin: the longest that fits counts."""


@reads("squeue")
def parse_squeue(text: str) -> dict[str, Job]:
    """The jobs of `squeue -h -r -o` with the fields above, by id."""
    found: dict[str, Job] = {}
    for line in text.splitlines():
        job_id, word, left, start, hosts, reason, name = line.split("|", 6)
        state, why = read_state(word, reason)
        found[job_id] = Job(
            job_id=job_id,
            state=state,
            reason=why,
            external=_is_external(word),
            name=name,
            hosts=hosts,
            start=_time(start),
            left=seconds(left) if state in ("running", "suspended") else None,
        )
    return found


@reads("sacct")
def parse_sacct(text: str) -> dict[str, Job]:
    """The jobs of `sacct -X -n -P -o` with the fields above, by id."""
    found: dict[str, Job] = {}
    for line in text.splitlines():
        job_id, word, code, hosts, reason, start, name = line.split("|", 6)
        state, why = read_state(word, reason)
        if state == "failed" and word == "FAILED":
            why = how_by_sacct(code)
        found[job_id] = Job(
            job_id=job_id,
            state=state,
            reason=why,
            external=_is_external(word),
            name=name,
            hosts="" if hosts == "None assigned" else hosts,
            start=_time(start),
        )
    return found


@reads("scontrol")
def parse_scontrol(text: str) -> tuple[str, ...]:
    """What `scontrol -o show job` has beyond squeue: what it depends on, its exit code, where and when."""
    fields = dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(\S*)", text.partition("\n")[0]))
    lines = []
    state = fields.get("JobState", "")
    if state == "PENDING" and fields.get("Dependency", "(null)") != "(null)":
        lines.append(f"depends on {fields['Dependency']}")
    if state == "PENDING" and fields.get("StartTime", "Unknown") not in ("Unknown", "N/A"):
        lines.append(f"expected to start at {fields['StartTime']}")
    if state in _MEANWHILE:
        lines.append(_MEANWHILE[state].format(job=array_task(fields)))
    if state == "TIMEOUT":
        lines.append(f"its time limit was {fields.get('TimeLimit')}")
    elif fields.get("ExitCode", "0:0") != "0:0":
        lines.append(how(fields["ExitCode"]))
    return tuple(lines)


def array_task(fields: Mapping[str, str]) -> str:
    """The id of a job as Slurm's commands take it: theirs is that of its array, if it is one of its tasks."""
    array, task = fields.get("ArrayJobId"), fields.get("ArrayTaskId")
    return f"{array}_{task}" if array else fields.get("JobId", "")


def script_file(command: str) -> str:
    """The file in what scontrol shows as a job's Command: its path and its arguments, all with blanks between them."""
    words = command.split(" ")
    paths = (" ".join(words[: count + 1]) for count in range(len(words)))
    return next((path for path in paths if Path(path).is_file()), command)


def asked_for(job: str) -> dict[str, Any]:
    """What a job in the words of `scontrol -o show job` asked for, as settings of a site: not its hosts and time."""
    fields = {name: value for name, value in re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(\S+)", job) if value != "(null)"}
    names = {"queue": "Partition", "account": "Account", "qos": "QOS"}
    found: dict[str, Any] = {name: fields[field] for name, field in names.items() if field in fields}
    if kind := re.search(r"\bgpu:([\w.-]*[A-Za-z][\w.-]*)", f"{fields.get('TresPerNode')} {fields.get('TresPerJob')}"):
        found["gpu"] = kind[1]
    cores = int(fields.get("NumCPUs", "1").partition("-")[0]) / int(fields.get("NumNodes", "1").partition("-")[0])
    for field, times in (("MinMemoryNode", 1.0), ("MinMemoryCPU", cores)):
        if memory := re.fullmatch(r"([\d.]+)([MGT])", fields.get(field, "")):
            found["memory_gb"] = float(memory[1]) * {"M": 1 / 1024, "G": 1, "T": 1024}[memory[2]] * times
    options = {"constraint": "Features", "reservation": "Reservation", "exclude": "ExcNodeList"}
    found["options"] = tuple(f"--{name}={fields[field]}" for name, field in options.items() if field in fields)
    found = {name: value for name, value in found.items() if value}
    if fields.get("MinMemoryNode") == "0":  # all of a node's, or Slurm does not count it: not the site's amount
        found |= {"memory_gb": 0.0, "options": (*found.get("options", ()), "--mem=0")}
    return found


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
    if state == "cancelled" or (state != "held" and reason.startswith("JobHeld")):
        # A reason from while it waited may stay behind, and a job that runs may be held for when it is requeued.
        return state, reason if reason == "DependencyNeverSatisfied" else ""
    return state, "" if reason in ("None", "") or state in ("running", "done") else reason


def _bare(word: str) -> str:
    return word.split()[0].rstrip("+")  # CANCELLED by 1000


def _is_external(word: str) -> bool:
    return _bare(word) in _FAILURES


def how(code: str) -> str:
    """Slurm's `3:0` or `0:9` in words: exit code 3, killed by SIGKILL."""
    status, _, number = code.partition(":")
    if number == _NO_OUTPUT:
        return "its log could not be opened: make the directory that --output names, on storage that all nodes share"
    return exit_words(int(status) if number in ("", "0") else -int(number))


def how_by_sacct(code: str) -> str:
    """The same of a failed job in the words of sacct, which takes 128 off an exit code above 127."""
    status, _, number = code.partition(":")
    if number != "0" or int(status) not in (0, *_KILLERS):
        return how(code)
    more = exit_words(128 + int(status))
    return more if status == "0" else f"{how(code)}, or {more}: sacct has both as {status}"


def end_time(job: str) -> float | None:
    """EndTime of `scontrol show job`, in Unix time; None if it has none."""
    found = re.search(r"\bEndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", job)
    return _time(found[1]) if found else None


def meaning(job_id: str, reason: str) -> str:
    """What a reason means in plain words; empty if it is none of the known ones."""
    if "SubmitJob" in reason:  # AssocMaxSubmitJobLimit, of sbatch
        return "as many jobs wait and run as may be submitted: wait until one has ended"
    if re.search(r"(Per(Job|Node)|(?<=QOS)Min|(?<=Assoc)Min)", reason):  # QOSMaxWallDurationPerJobLimit
        return "it asks for more than its quality of service or account gives one job, and will not start: ask for less"
    if "Minutes" in reason and "RunMinutes" not in reason:  # AssocGrpCPUMinutesLimit
        return "the time that its account or quality of service may use is used up: ask an administrator for more"
    fits = [begin for begin in REASONS if reason.startswith(begin)]
    return REASONS[max(fits, key=len)].format(job=job_id) if fits else ""


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # N/A, Unknown, None
        return None


def seconds(text: str) -> float | None:
    """A time as Slurm writes it, in seconds; None if it is none or without end."""
    # 2-03:04:05, 3:04:05, 4:05; UNLIMITED, INVALID (the limit has passed), NOT_SET
    days, _, clock = text.rpartition("-")
    if not re.fullmatch(r"\d+(:\d+)*", clock):
        return None
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return float(int(days or 0) * 86400 + total)
