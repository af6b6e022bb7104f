"""Why a run waits, or how it failed, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcgender.commands.jobs import WhyConfig
from hpcgender.status import failure, studies
from hpcgender.status.direct import explain as explain_direct
from hpcgender.status.direct import named as find_direct
from hpcgender.status.runs import (
    ListedRun,
    Queues,
    ask,
    choose,
    has_ended,
    judge_all,
    matching,
    no_run,
    of_array,
    others,
    read_direct,
    read_records,
    shown,
    study_meant,
    unheard,
)
from hpcgender.status.state import is_earlier, read_history
from hpcgender.status.unrecorded import explain as unrecorded
from jobs.command import SchedulerError
from jobs.hosts.processes import exit_words
from jobs.scheduler import WAITING, Job, Scheduler, array_id
from jobs.schedulers import named
from shard_tools.base.text import printable


def why(config: WhyConfig) -> None:
    """Prints what is known of one run or study. UserError if it is not there."""
    records = read_records(config.within)
    recorded = matching(records, config.run)
    if not recorded:
        queues = ask([])
        found = [
            (scheduler, job)
            for scheduler, job in others(records, queues)
            if config.run in (job.job_id, array_id(job.job_id), job.name)
        ]
        if found:
            print("\n".join(map(printable, explain_queued(found))))
            return
        if direct := find_direct(read_direct(config.within, records, ()), config.run):
            print("\n".join(map(printable, explain_direct(direct))))
            return
        if lines := list(unrecorded(config.run, queues)):
            print("\n".join(map(printable, lines)))
            return
        raise no_run(config.run, records, config.within)
    if name := study_meant(recorded, config.run):
        queues = ask(recorded)
        runs = shown(judge_all(recorded, queues))
        print(f"study {name}: {studies.counted(runs)}")
        print("\n".join(line for run in studies.to_explain(runs) for line in explain(run, queues)))
        return
    run, queues = choose(records, config.run, config.within)
    submission = run.record.submission
    array = array_id(submission.job_id)
    not_begun: list[Job] = []
    if submission.job_id not in (array, config.run):
        pairs = others(records, queues)
        not_begun = [job for name, job in pairs if (name, array_id(job.job_id)) == (submission.scheduler, array)]
        begun = judge_all(matching(records, array), queues)
        states = [*(task.status.state for task in begun), *(job.state for job in not_begun)]
        if len(states) > 1:
            print(of_array(array, states))
    print("\n".join(explain(run, queues)))
    if not_begun:
        print("\n".join(map(printable, explain_task(submission.scheduler, not_begun))))
    same = judge_all([record for record in records if record.results == run.record.results], queues)
    for direct in read_direct(config.within, records, same):
        if direct.results == run.record.results:
            print("\n".join(map(printable, explain_direct(direct))))


def explain_queued(found: Sequence[tuple[str, Job]]) -> Iterator[str]:
    """The lines about jobs, or tasks of an array, that have no record here: of the first all that is known."""
    scheduler, job = found[0]
    array = array_id(job.job_id)
    tasks = [task for name, task in found if name == scheduler and array_id(task.job_id) == array]
    if len(tasks) > 1:
        yield of_array(array, (task.state for task in tasks))
    yield from explain_task(scheduler, tasks)


def explain_task(scheduler: str, tasks: Sequence[Job]) -> Iterator[str]:
    """The lines about the first of some tasks of an array, or the one job, without a record: one that waits, if any."""
    job = next((task for task in tasks if task.state in WAITING), tasks[0])
    array = array_id(job.job_id)
    yield f"job {job.job_id} {job.name} on {named(scheduler).title}: {job.state}"
    same = len(tasks) > 1 and len({task.state for task in tasks}) == 1  # what helps one helps all
    yield from (f"  {line}" for line in waiting(named(scheduler), array if same else job.job_id, job.reason))
    if job.state in WAITING and job.job_id != array:
        yield f"  hpcgender jobs cancel {job.job_id} cancels it, hpcgender jobs cancel {array} the whole array"


def explain(run: ListedRun, queues: Queues) -> Iterator[str]:
    """The lines about a run: its state, what the scheduler says, and the last lines of its log."""
    submission, status = run.record.submission, run.status
    scheduler = named(submission.scheduler)
    number = f", attempt {status.attempt}" if status.attempt else ""
    yield f"{run.record.run}: job {submission.job_id} on {scheduler.title}{number}: {status.state}"
    ends: list[str] = []
    if status.hosts:
        yield f"  {'runs' if status.state in ('running', 'stopping', 'suspended') else 'ran'} on {status.hosts}"
    if status.alive and status.state != "running":
        yield from (f"  {line}" for line in waiting(scheduler, submission.job_id, status.reason))
        if not status.attempt:
            return
    elif status.alive:
        yield from (f"  {line}" for line in advised(scheduler, submission.job_id))
    elif status.reason == "DependencyNeverSatisfied":
        yield "  a job before it did not succeed"
    elif status.reason:
        error = unheard(run, queues)
        yield f"  {status.reason}: {error}" if error else f"  {status.reason}"
    if has_ended(run, queues) and status.state not in ("done", "skipped"):
        ends = list(ending(run))
        yield from (f"  {line}" for line in ends)
    yield from end_of_log(run, "\n".join((status.reason, *ends)))


def waiting(scheduler: Scheduler, job_id: str, reason: str) -> Iterator[str]:
    """Why a job waits, in the scheduler's words and plainer ones."""
    if reason:
        meaning = scheduler.meaning(job_id, reason.removeprefix("requeued, "))
        yield f"{reason}: {meaning}" if meaning else reason
    try:
        details = scheduler.details(job_id)
    except SchedulerError as error:
        details = (str(error),)
    yield from (line for line in details if line not in reason)
    yield from advised(scheduler, job_id, reason, details)


def advised(scheduler: Scheduler, job_id: str, reason: str = "", details: Sequence[str] = ()) -> Iterator[str]:
    """What a person can do about a job, also about one that runs where its host is lost."""
    try:
        advice = scheduler.advice(job_id, reason, details)
    except SchedulerError as error:
        advice = str(error)
    if advice:
        yield advice


def ending(run: ListedRun) -> Iterator[str]:
    """What record, scheduler and accounting say of a run that did not end well, beyond its reason."""
    submission, reason = run.record.submission, run.status.reason
    history = read_history(submission.attempts)
    last = history.last
    known = isinstance(last.get("code"), int)
    lines = [exit_words(last["code"])] if known else []
    if last.get("stopped_by") and str(last["stopped_by"]) not in reason:
        lines.append(f"stopped by {last['stopped_by']}")
    scheduler = named(submission.scheduler)
    details: tuple[str, ...] = ()
    found = None
    try:
        details = scheduler.details(submission.job_id)
        found = scheduler.ended([submission.job_id], 0.0).get(submission.job_id)
    except SchedulerError as error:
        details += (str(error),)
    lines += details
    if found and not is_earlier(found, history):
        same = found.state == "done" or (known and found.state == "failed" and not found.external)
        lines += [found.reason] * (not same and not details)  # accounting may know less of it
        wanted = submission.resources.mem
        if found.max_memory:
            asked = f" of the {wanted:g} GB asked for on each node" if wanted else ""
            lines.append(f"held at most {found.max_memory / 1e9:.1f} GB{asked}")
    yield from (line for line in dict.fromkeys(lines) if line and line not in reason)


def end_of_log(run: ListedRun, said: str = "") -> Iterator[str]:
    """The last traceback and messages of the log, or that there is no log; `said` is what was said before."""
    submission = run.record.submission
    if not submission.log:
        yield "  its log went to a terminal"
        return
    log = Path(submission.log)
    if not log.exists():
        yield f"  no log {log}"
        return
    yield from failure.explain(log, said)
