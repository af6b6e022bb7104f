"""Putting a job of several hosts back into the queue, from its first host or after the loss of that.

After exit code 99 Grid Engine (6.2 to 8.1.9, seen; its successors have the same lines) waits for its other hosts to
report the job's end, forgets that they did, and from then on waits for that again: `cannot run on host "node2" until
clean up of a previous run has finished`, for ever. `qmod -rj` notes it in the right order, but may start the job again
while its old processes end, and mix the two up. So the job's start time is first set to after that.

When the first host is lost, Grid Engine waits for max_unheard, five minutes where nobody has changed that, and then for
reschedule_unknown or the host's return. `qmod -rj` from another host of the job starts it again within seconds, as seen
on 8.1.9 with a bare script, but not on the hosts that it had: these still report the old task, minutes after its end,
until the connection to the lost host has failed. Put back at once, or with a start time a minute later, the job hangs
in Rt there, also after the host's return; put back after three minutes and a half it starts there, too. So it asks for
other hosts before it is put back, if there are any, and avoids the old ones until it is put back again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence

from ..command import SchedulerError, answer
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
        wanted = _field(answer(call, "qstat", "-j", number), "hard resource_list")
        if (again := anywhere(wanted)) != wanted:
            answer(call, "qalter", "-l", again, number)  # if it fails, the job still starts, elsewhere
        call("qmod", "-rj", f"{number}.{task}" if task.isdigit() else number)
    except SchedulerError as error:
        return str(error)
    return ""


def leave_hosts(hosts: Sequence[str], environ: Mapping[str, str] = os.environ) -> str:
    """Starts a job whose first host is lost again on others than `hosts`, from one of them. Needs what `put_back` does.

    Returns why it does not, in one line, and leaves the job as it is then: as where there are no such hosts, busy or
    not. Empty if it does.
    """
    number, task = environ["JOB_ID"], environ.get("SGE_TASK_ID", "undefined")
    if task.isdigit():
        return "the tasks of an array share what they ask for"
    try:
        listing = call("qstat", "-j", number)
        wanted = without(_field(listing, "hard resource_list"), hosts)
        where = {"-q": _field(listing, "hard_queue_list"), "-P": _field(listing, "project")}
        more = [word for option, value in where.items() if value for word in (option, value)]
        environment = re.search(r"^parallel environment:\s+(\S+) range: (\S+)", listing, flags=re.MULTILINE)
        if not environment:
            return "its parallel environment is unknown"
        call("qsub", "-w", "v", "-b", "y", "-pe", *environment.groups(), "-l", wanted, *more, "true")
        call("qalter", "-l", wanted, number)
        call("qmod", "-rj", number)
    except SchedulerError as error:
        return str(error)
    return ""


def without(resources: str, hosts: Sequence[str]) -> str:
    """A list of resources as `qsub -l` takes it, without some hosts; hosts that it asks for are still asked for.

    In place of those that it was without before.
    """
    kept = [resource for resource in anywhere(resources).split(",") if resource not in ("", "hostname=*")]
    asked = [resource.partition("=")[2] for resource in kept if resource.startswith("hostname=")]
    left = "&".join(f"!{host}" for host in hosts)
    names = "&".join(f"({one})" for one in (*asked, left))
    return ",".join([*(resource for resource in kept if not resource.startswith("hostname=")), f"hostname={names}"])


def anywhere(resources: str) -> str:
    """A list of resources with the hosts again that `without` has left out; it keeps those that a person has."""
    kept = []
    for resource in resources.split(","):
        left_out = re.fullmatch(r"(?:hostname=(?:\((.*)\)&)?\(![^()|]*\))", resource)
        asked = f"hostname={left_out[1]}" if left_out and left_out[1] else ""
        kept.append(asked if left_out else resource)
    # qalter takes no empty list.
    return ",".join(filter(None, kept)) or ("hostname=*" if resources else "")


def _field(listing: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(\S+)", listing, flags=re.MULTILINE)
    return found[1] if found else ""


def report_seconds(configuration: str) -> float:
    """The interval at which hosts report, load_report_time of `qconf -sconf`, in seconds."""
    found = re.search(r"^load_report_time\s+(\d+):(\d+):(\d+)", configuration, flags=re.MULTILINE)
    return int(found[1]) * 3600.0 + int(found[2]) * 60 + int(found[3]) if found else _REPORT_SECONDS


if __name__ == "__main__":  # python -m jobs.sge.requeue HOST ...
    if because := leave_hosts(sys.argv[1:]):
        sys.exit(f"job {os.environ['JOB_ID']} is not started elsewhere: {because}")
