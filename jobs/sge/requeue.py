"""Putting a job of several hosts back into the queue, which exit code 99 alone does badly.

After exit code 99 Grid Engine (6.2 to 8.1.9, seen; its successors have the same lines) waits for its other hosts to
report the job's end, forgets that they did, and from then on waits for that again: `cannot run on host "node2" until
clean up of a previous run has finished`, for ever. `qmod -rj` notes it in the right order, but may start the job again
while its old processes end, and mix the two up. So the job's start time is first set to after that.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from ..command import SchedulerError
from .qstat import call

MARGIN_SECONDS = 20.0
"""How long the hosts may take, beyond the interval of their reports, to report that the old processes are gone."""

_REPORT_SECONDS = 40.0  # Grid Engine's default


def put_back(environ: Mapping[str, str] = os.environ) -> str:
    """Puts this job back; it must end immediately then, with 99, which requeues it where this fails.

    The job starts again no sooner than about a minute later. Needs `-r y`, and the rights of a submit host for the one
    that the job script runs on. Returns why it failed, in one line; empty if it did not.
    """
    number, task = environ["JOB_ID"], environ.get("SGE_TASK_ID", "undefined")
    try:
        wait = report_seconds(call("qconf", "-sconf")) + MARGIN_SECONDS
        start = time.strftime("%Y%m%d%H%M.%S", time.localtime(time.time() + wait))
        call("qalter", "-a", start, number)
        call("qmod", "-rj", f"{number}.{task}" if task.isdigit() else number)
    except SchedulerError as error:
        return str(error)
    return ""


def report_seconds(configuration: str) -> float:
    """The interval at which hosts report, load_report_time of `qconf -sconf`, in seconds."""
    found = re.search(r"^load_report_time\s+(\d+):(\d+):(\d+)", configuration, flags=re.MULTILINE)
    return int(found[1]) * 3600.0 + int(found[2]) * 60 + int(found[3]) if found else _REPORT_SECONDS
