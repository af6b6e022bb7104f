"""Why a run waits, or how it failed, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcgender.commands.jobs import WhyConfig
from hpcgender.status import words
from hpcgender.status.runs import Queues, Run, ask, choose, has_ended, matching, no_run, others, read_records
from hpcgender.status.state import read_history
from jobs import queue
from jobs.queue import QueueError

NAMES = {"slurm": "Slurm", "sge": "Grid Engine", "local": "this machine"}

REASONS = {
    "Priority": "jobs of higher priority go first",
    "Resources": "it is next; what it asks for is in use",
    "Dependency": "it waits for the jobs before it",
    "DependencyNeverSatisfied": "a job before it did not succeed, so it will never start: cancel it",
    "JobHeldUser": "you hold it: scontrol release {job} lets it go",
    "JobHeldAdmin": "an administrator holds it: ask them",
    "BeginTime": "it may not begin yet; after a requeue that is two minutes",
    "BadConstraints": "no node is as it asks for: cancel it, and ask for something else",
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
"""What Slurm's reasons mean, by how they begin: the longest that fits counts."""


def why(config: WhyConfig) -> None:
    """Prints what is known of one run. UserError if it is not there."""
    records = read_records(config.within)
    if not matching(records, config.run):
        queues = ask([])
        for scheduler, job in others(records, queues):
            if config.run in (job.job_id, job.name):
                print(f"job {job.job_id} {job.name} on {NAMES[scheduler]}: {job.state}")
                print("\n".join(f"  {line}" for line in waiting(scheduler, job.job_id, job.reason)))
                return
        raise no_run(config.run, records, config.within)
    run, queues = choose(records, config.run, config.within)
    print("\n".join(explain(run, queues)))


def explain(run: Run, queues: Queues) -> Iterator[str]:
    """The lines about a run: its state, what the scheduler says, and the last words of its log."""
    submission, status = run.record.submission, run.status
    number = f", attempt {status.attempt}" if status.attempt else ""
    yield f"{run.record.run}: job {submission.job_id} on {NAMES[submission.scheduler]}{number}: {status.state}"
    if status.hosts:
        yield f"  {'ran' if has_ended(run, queues) else 'runs'} on {status.hosts}"
    if status.alive and status.state != "running":
        yield from (f"  {line}" for line in waiting(submission.scheduler, submission.job_id, status.reason))
        if not status.attempt:
            return
    elif status.reason == "DependencyNeverSatisfied":
        yield "  a job before it did not succeed"
    elif status.reason:
        yield f"  {status.reason}"
    if has_ended(run, queues) and status.state not in ("done", "skipped"):
        yield from (f"  {line}" for line in ending(run))
    yield from last_words(run)


def waiting(scheduler: str, job_id: str, reason: str) -> Iterator[str]:
    """Why a job waits, in the scheduler's words and plainer ones."""
    if reason:
        bare = reason.removeprefix("requeued, ")
        fits = [begin for begin in REASONS if bare.startswith(begin)] if scheduler == "slurm" else []
        meaning = REASONS[max(fits, key=len)].format(job=job_id) if fits else ""
        yield f"{reason}: {meaning}" if meaning else reason
    try:
        said = queue.details(scheduler, job_id) if scheduler != "local" else ()
    except QueueError as error:
        said = (str(error),)
    yield from (line for line in said if line not in reason)
    if scheduler == "sge" and reason.startswith("E"):
        yield f"when that is mended: qmod -cj {job_id} lets it try again"
    elif scheduler == "sge" and not said:
        yield "Grid Engine does not say why: qstat -g c shows what is free, hpcgender sites check what there is"


def ending(run: Run) -> Iterator[str]:
    """What record, scheduler and accounting say of a run that did not end well, beyond its reason."""
    submission, reason = run.record.submission, run.status.reason
    last = read_history(submission.attempts).last
    if "code" in last and f"exit code {last['code']}" not in reason:
        yield f"exit code {last['code']}"
    if last.get("stopped_by") and str(last["stopped_by"]) not in reason:
        yield f"stopped by {last['stopped_by']}"
    if submission.scheduler == "local":
        return
    said: list[str] = []
    try:
        if submission.scheduler == "slurm":
            said += queue.details("slurm", submission.job_id)
        found = queue.ended(submission.scheduler, [submission.job_id], 0.0).get(submission.job_id)
    except QueueError as error:
        yield str(error)
        return
    if found:
        said += [found.reason] * (found.state != "done")
        wanted = submission.resources.mem
        if found.max_memory:
            asked = f" of the {wanted:g} GB asked for on each node" if wanted else ""
            said.append(f"held at most {found.max_memory / 1e9:.1f} GB{asked}")
    yield from (line for line in dict.fromkeys(said) if line and line != reason)


def last_words(run: Run) -> Iterator[str]:
    """The log's last traceback and what the launcher said, or that there is no log."""
    submission = run.record.submission
    if not submission.log:
        yield "  its log went to a terminal"
        return
    log = Path(submission.log)
    if not log.exists():
        yield f"  no log {log}"
        return
    text = words.last_attempt(log)
    traceback = words.last_traceback(text)
    said = [line for line in words.spoken(text) if line not in traceback]
    if words.tells_of_memory(text):
        yield "  memory ran out"
    elif any("SIGKILL" in line for line in said):
        yield "  a process was killed: often for want of memory"
    yield f"  log: {log}"
    for block in (traceback.splitlines(), said):
        if block:
            yield ""
            yield from block
