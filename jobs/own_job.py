"""What the scheduler knows of the job around this process, and how that is put back into the queue."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from jobs.allocation import Allocation

LOSS_SECONDS = 400.0
"""A little more than the time, max_unheard, after which Grid Engine gives up hosts where that was not changed."""

_SECONDS = 20
_PATIENCE = 3  # times that a scheduler which does not answer is asked again


def job_name(allocation: Allocation, environ: Mapping[str, str]) -> str:
    """The job's name; empty if there is no scheduler."""
    return environ.get({"slurm": "SLURM_JOB_NAME", "sge": "JOB_NAME"}.get(allocation.scheduler, ""), "")


def script(allocation: Allocation, environ: Mapping[str, str]) -> tuple[str, str]:
    """The file that was submitted, and what was in it; empty where that is not known."""
    if allocation.scheduler == "slurm":
        file = re.search(r"\bCommand=(\S+)", _slurm_job(allocation.job_id))
        text = _answer("scontrol", "write", "batch_script", allocation.job_id, "-")
        return file[1] if file else "", text or ""
    if allocation.scheduler == "sge":
        try:  # the copy that runs
            text = Path(environ["JOB_SCRIPT"]).read_text()
        except (KeyError, OSError, UnicodeDecodeError):
            text = ""
        file = re.search(r"^script_file:\s+(.+)$", _sge_job(allocation.job_id), re.MULTILINE)
        return file[1] if file else "", text
    return "", ""


def end_time(allocation: Allocation, environ: Mapping[str, str]) -> float | None:
    """When the scheduler will end this job, in Unix time; None if never, or if it does not say."""
    if allocation.scheduler == "slurm":
        return slurm_end(_slurm_job(allocation.job_id))
    if allocation.scheduler == "sge":
        queue = environ.get("QUEUE")
        said = [_sge_job(allocation.job_id), (_answer("qconf", "-sq", queue) or "") if queue else ""]
        limits = [limit for limit in map(sge_limit, said) if limit]
        return sge_start(environ) + min(limits) if limits else None
    return None


def slurm_end(job: str) -> float | None:
    """EndTime in what `scontrol show job` says, in Unix time."""
    found = re.search(r"\bEndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", job)
    return datetime.fromisoformat(found[1]).timestamp() if found else None


def sge_limit(text: str) -> float | None:
    """The seconds of h_rt in what `qstat -j` or `qconf -sq` says; None without one."""
    found = re.search(r"^(?:hard resource_list:.*\bh_rt=|h_rt\s+)([\d:]+)", text, re.MULTILINE)
    if not found:
        return None
    seconds = 0.0
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part or 0)
    return seconds


def sge_start(environ: Mapping[str, str]) -> float:
    """When this attempt of a Grid Engine job began, in Unix time: as its shepherd did, or now."""
    try:
        return (Path(environ["SGE_JOB_SPOOL_DIR"]) / "pid").stat().st_mtime
    except (KeyError, OSError):
        return time.time()


def is_cancelled(allocation: Allocation, stopped_by: str | None) -> bool:
    """Whether the scheduler ends this job for good: scancel, qdel, or a limit that came first.

    Slurm's controller has to call it RUNNING still. Grid Engine marks what qdel was called for; where qstat does not
    answer, USR2 counts as qdel's notice.
    """
    if allocation.scheduler == "slurm":
        state = re.search(r"\bJobState=(\w+)", _slurm_job(allocation.job_id))
        return not state or state[1] != "RUNNING"
    from jobs.sge.qstat import GridEngineError, query

    try:
        job = query().get(allocation.job_id)
    except GridEngineError:
        return stopped_by == "SIGUSR2"
    return not job or job.state == "CANCELLING"


def is_put_back(allocation: Allocation, environ: Mapping[str, str]) -> bool:
    """Whether Slurm has put the job back itself: it was preempted, or somebody called `scontrol requeue`.

    Its state is COMPLETING then, as after scancel, but it counts one restart more than when this attempt began.
    """
    if allocation.scheduler != "slurm":
        return False
    restarts = re.search(r"\bRestarts=(\d+)", _slurm_job(allocation.job_id))
    return restarts is not None and int(restarts[1]) > int(environ.get("SLURM_RESTART_COUNT") or 0)


def put_back(allocation: Allocation) -> str:
    """Puts the job back into the queue; returns why that failed, or nothing. It is to end with 99 then, and soon.

    99 alone puts back a Grid Engine job of one host, and, without the hosts that it had, one of several.
    """
    if allocation.scheduler == "sge":
        from jobs.sge import requeue

        if len(allocation.hosts) > 1 and (because := requeue.put_back()):
            print(f"launch: left to exit code 99, which may not use the same hosts again: {because}", file=sys.stderr)
        return ""
    command = ["scontrol", "requeue", allocation.job_id]
    said = "no answer"
    for _ in range(_PATIENCE):
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()
            break
        except subprocess.TimeoutExpired:
            continue
        return ""
    return f"{' '.join(command)}: {said}"


def await_loss(host: str) -> None:
    """Waits until Grid Engine knows that a host is lost, for at most LOSS_SECONDS: it would use it again before."""
    deadline = time.monotonic() + LOSS_SECONDS
    while time.monotonic() < deadline and not is_unknown(_answer("qhost", "-h", host) or "", host):
        time.sleep(2)


def is_unknown(listing: str, host: str) -> bool:
    """Whether `qhost` has no load of a host."""
    rows = (line.split() for line in listing.splitlines())
    return any(row[0].partition(".")[0] == host.partition(".")[0] and row[6] == "-" for row in rows if len(row) > 6)


def _slurm_job(job_id: str) -> str:
    return _answer("scontrol", "show", "job", "-o", job_id) or ""


def _sge_job(job_id: str) -> str:
    return _answer("qstat", "-j", job_id.partition(".")[0]) or ""


def _answer(*command: str) -> str | None:
    """What a scheduler's command prints; None if it fails, is not there, or does not answer in time."""
    name = command[0]
    # The shell of a Grid Engine job may not have its commands on PATH.
    found = shutil.which(name) or f"{os.environ.get('SGE_ROOT', '')}/bin/{os.environ.get('SGE_ARCH', '')}/{name}"
    for _ in range(_PATIENCE):
        try:
            done = subprocess.run(
                [found, *command[1:]], capture_output=True, text=True, timeout=_SECONDS, check=True, errors="replace"
            )
        except subprocess.TimeoutExpired:
            continue
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout
    return None
