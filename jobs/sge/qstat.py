"""One user's jobs: from qstat those that wait or run, from qacct those that ended."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from xml.etree import ElementTree

from ..command import SchedulerError, reads
from ..command import call as command_output
from ..hosts.processes import exit_words
from .reasons import parse_why, parse_xml

REQUEUE = 99
"""The exit code with which a job asks Grid Engine to run it again, under the same id."""

DONE_ELSEWHERE, REQUEUE_ELSEWHERE = 95, 94
"""Exit codes of a job's part on another host that has ended with 0 or 99: see `qrsh`."""

LiveState = Literal["PENDING", "HELD", "RUNNING", "SUSPENDED", "REQUEUED", "CANCELLING", "FAILED"]
EndState = Literal["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, or one task of an array, that waits or runs.

    `job_id` is Grid Engine's own, `12` or `12.3`; `letters` are qstat's (qw, r, Eqw ...), `queue` is empty and `host`,
    where the script runs, too, as long as it waits. `time` is when it started or else was submitted, in seconds since
    1970. A job that is FAILED here is in error state (E): it stays so, for the `reason`, until a person helps.
    """

    job_id: str
    state: LiveState
    letters: str
    name: str
    owner: str
    slots: int
    queue: str
    host: str
    time: float
    reason: str = ""
    after: tuple[str, ...] = ()
    """Of a held job the jobs before it that have not ended; without one, a person holds it."""

    @property
    def starts(self) -> bool:
        """Whether it is being handed to its host, `t`; it may stay so, and does not run yet."""
        return self.state == "RUNNING" and "t" in self.letters


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a job, or one task of an array, ended: the last of its records in the accounting file.

    `failed` is Grid Engine's own code (0 none, 25 rescheduled, 26 log file, 37 limit, 100 killed ...), `failed_text`
    its description. Times are seconds since 1970, None if it never ran; `maxvmem` is in bytes.
    """

    job_id: str
    name: str
    owner: str
    queue: str
    host: str
    slots: int
    failed: int
    failed_text: str
    exit_code: int
    maxvmem: int
    start: float | None
    end: float | None
    deleted_by: str = ""

    @property
    def state(self) -> EndState:
        if self.failed == 37:
            return "TIMEOUT"
        # It was to run again, and is gone: it was deleted meanwhile.
        if self.deleted_by or self.failed == 25 or self.exit_code == REQUEUE:
            return "CANCELLED"
        return "FAILED" if self.failed or self.exit_code else "COMPLETED"

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that killed it, if one did."""
        try:
            return signal.Signals(self.exit_code - 128) if self.exit_code > 128 else None
        except ValueError:
            return None

    @property
    def reason(self) -> str:
        """Why it did not complete, in one line; empty if it did."""
        if self.state == "COMPLETED":
            return ""
        if self.deleted_by:
            return f"deleted by {self.deleted_by}"
        if self.state == "CANCELLED":
            return "deleted while it was to run again"
        if self.state == "TIMEOUT":
            return f"Grid Engine ended it at a limit: {self.failed_text}"
        if self.signal:
            return f"{exit_words(self.exit_code)}, perhaps by qdel"
        if self.failed:
            return f"{self.failed_text} (code {self.failed} of Grid Engine)"
        return exit_words(self.exit_code)


def query(owner: str = "") -> dict[str, Job]:
    """All jobs of `owner` (default: this user) that wait or run, by id: one qstat call, one more if any is in error.

    Each task of an array has an entry of its own. Raises SchedulerError.
    """
    jobs = parse_qstat(call("qstat", "-xml", "-r", "-u", owner or user_name()))
    errors = [job.job_id for job in jobs.values() if job.state == "FAILED"]
    if errors:
        reasons = why(errors)
        for job_id in errors:
            jobs[job_id] = replace(jobs[job_id], reason="; ".join(reasons.get(job_id, ())))
    return jobs


def why(job_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Why jobs are in error state or still wait, in Grid Engine's words; one `qstat -j` call for all.

    What it says of all jobs, of queues that take none, is summed up, and comes last.

    Ids without a reason, or that are gone, are left out. Raises SchedulerError.
    """
    wanted = list(job_ids)
    numbers = sorted({job_id.partition(".")[0] for job_id in wanted}, key=int)
    if not numbers:
        return {}
    reasons = parse_why(call("qstat", "-j", ",".join(numbers), "-xml"))
    found = {job_id: reasons.get(job_id) or reasons.get(job_id.partition(".")[0], ()) for job_id in wanted}
    return {job_id: lines for job_id, lines in found.items() if lines}


def ended(owner: str = "", since: float | None = None, job_id: str = "") -> dict[str, Record]:
    """The last record of each of `owner`'s (default: this user's) jobs that qacct has, by id; one call.

    `since`, seconds since 1970, leaves out what started before it, and what never started. `job_id` asks for one job
    with all tasks of its array. A job that is pending again after a requeue has records, too: ask `query` first. qacct
    lags behind, by 15 s as a rule. Raises SchedulerError.
    """
    begin = ("-b", time.strftime("%Y%m%d%H%M.%S", time.localtime(since))) if since is not None else ()
    numbers = (job_id.partition(".")[0],) if job_id else ()
    try:
        text = call("qacct", "-o", owner or user_name(), *begin, "-j", *numbers)
    except SchedulerError as error:
        if "not found" in str(error):
            return {}
        raise
    return parse_qacct(text)


@reads("qstat")
def parse_qstat(xml: str) -> dict[str, Job]:
    """The jobs of `qstat -xml`, each task of an array by itself."""
    jobs = {}
    for entry in parse_xml(xml).iter("job_list"):
        queue, _, host = entry.findtext("queue_name", "").partition("@")
        number = entry.findtext("JB_job_number", "")
        stamp = entry.findtext("JAT_start_time", "") or entry.findtext("JB_submission_time", "")
        job = Job(
            job_id=number,
            state=live_state(entry.findtext("state", "")),
            letters=entry.findtext("state", ""),
            name=entry.findtext("JB_name", ""),
            owner=entry.findtext("JB_owner", ""),
            slots=int(entry.findtext("slots", "1")),
            queue=queue,
            host=host,
            time=datetime.fromisoformat(stamp).timestamp(),
            after=predecessors(entry),
        )
        tasks = entry.findtext("tasks", "")
        jobs.update(
            {f"{number}.{task}": replace(job, job_id=f"{number}.{task}") for task in expand_tasks(tasks)}
            if tasks
            else {number: job}
        )
    return jobs


def predecessors(entry: ElementTree.Element) -> tuple[str, ...]:
    """The jobs that a job of `qstat -r` waits for, without those that have ended."""
    names = ("predecessor_jobs", "ad_predecessor_jobs")
    texts = [found.text or "" for name in names for found in entry.iter(name)]
    return tuple(dict.fromkeys(word for text in texts for word in re.split(r"[,\s]+", text) if word))


def expand_tasks(tasks: str) -> list[int]:
    """The numbers of Grid Engine's short form: `1,3-9:2` is 1, 3, 5, 7, 9."""
    numbers: list[int] = []
    for span in tasks.split(","):
        ends, _, step = span.partition(":")
        first, _, last = ends.partition("-")
        numbers += range(int(first), int(last or first) + 1, int(step or 1))
    return numbers


def live_state(letters: str) -> LiveState:
    """What qstat's letters mean: an error goes before a deletion, that before a hold, and `Rr` runs again."""
    if "E" in letters:
        return "FAILED"
    if "d" in letters:
        return "CANCELLING"
    if set(letters) & set("sSTP"):
        return "SUSPENDED"
    if "r" in letters or "t" in letters:
        return "RUNNING"
    if "h" in letters:
        return "HELD"
    return "REQUEUED" if "R" in letters else "PENDING"


@reads("qacct")
def parse_qacct(text: str) -> dict[str, Record]:
    """The last record of each job of `qacct -j`. Records of a parallel job's slave tasks come before its own.

    Where accounting is late they may be there alone for a while: those that can be told apart are left out.
    """
    records = {}
    for block in re.split(r"^=+$", text, flags=re.MULTILINE):
        pairs = (line.split(None, 1) for line in block.splitlines())
        fields = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
        code = int(fields.get("exit_status", "0").split()[0])
        part = code in (DONE_ELSEWHERE, REQUEUE_ELSEWHERE) and fields.get("granted_pe", "NONE") != "NONE"
        if "jobnumber" not in fields or part:
            continue
        task = fields.get("taskid", "undefined")
        job_id = fields["jobnumber"] + (f".{task}" if task.isdigit() and task != "0" else "")
        failed, _, failed_text = fields.get("failed", "0").partition(":")
        records[job_id] = Record(
            job_id=job_id,
            name=fields.get("jobname", ""),
            owner=fields.get("owner", ""),
            queue=fields.get("qname", ""),
            host=fields.get("hostname", ""),
            slots=int(fields.get("slots", "1")),
            failed=int(failed),
            failed_text=failed_text.strip(),
            exit_code=code,
            maxvmem=_read_bytes(fields.get("maxvmem", "0")),
            start=_read_time(fields.get("start_time", "")),
            end=_read_time(fields.get("end_time", "")),
            deleted_by=fields.get("deleted_by", "").replace("NONE", ""),
        )
    return records


def call(*command: str, seconds: float | None = None) -> str:
    """The standard output of a command of Grid Engine. Raises SchedulerError if it fails or takes longer."""
    name = command[0]
    # The shell of a job may not have its commands on PATH.
    there = f"{os.environ.get('SGE_ROOT', '')}/bin/{os.environ.get('SGE_ARCH', '')}/{name}"
    program = there if shutil.which(name) is None and shutil.which(there) else name
    return command_output(program, *command[1:], seconds=seconds)


def user_name() -> str:
    """The name that Grid Engine knows this user by."""
    return pwd.getpwuid(os.getuid()).pw_name


def _read_bytes(text: str) -> int:
    found = re.match(r"([\d.]+)([KMGT]?)", text)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else 0


def _read_time(text: str) -> float | None:
    # Sun Nov 22 22:52:22 2026, or 11/22/2026 22:52:22.123 of Univa's; -/- of what never ran
    if not text or text.startswith("-"):
        return None
    if text[0].isdigit():
        return datetime.strptime(text.partition(".")[0], "%m/%d/%Y %H:%M:%S").timestamp()
    return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").timestamp()
