"""What a person can type about a job that waits, runs where nothing answers, or does not end."""

from __future__ import annotations

from jobs.sge.qstat import Job

_SUSPENDED = {
    "s": "suspended by qmod: qmod -usj {id} lets it go on",
    "S": "its queue is suspended, by an administrator, a calendar or another queue: it goes on when that ends",
    "T": "suspended while the load of its host is above its queue's limit",
    "P": "suspended for a job of higher priority, after which it goes on",
}


def advise(job: Job, away: bool, reasons: bool) -> str:
    """One line about a job; `away` if its host does not answer Grid Engine, `reasons` why it waits, in its words.

    Seen on 8.1.9 with a bare script: after the loss of its first host a job of two hosts that is started again while
    Grid Engine still has its task on the other one, is mixed up with that (`duplicate list element` in the master's
    messages), and left in Rt, once for 85 minutes. `qmod -rj` then started it at once, and `qdel` ends it. See
    `requeue`.
    """
    if job.state == "FAILED":
        return f"after that is fixed: qmod -cj {job.job_id} lets it try again"
    if job.state == "CANCELLING":
        away_words = f"{job.host}, where it runs, does not answer Grid Engine" if away else "if it stays so for minutes"
        return (
            f"{away_words}: qdel -f {job.job_id} deletes it where users may (ENABLE_FORCED_QDEL in `qconf -sconf`), or "
            "ask an administrator to"
        )
    if job.starts:
        return (
            f"if it stays so for minutes, as it may after the loss of a host: qmod -rj {job.job_id} starts it again, "
            f"qdel {job.job_id} deletes it"
        )
    if job.state in ("RUNNING", "SUSPENDED") and away:
        return (
            f"{job.host}, where it runs, does not answer Grid Engine: qmod -rj {job.job_id} starts it again, if it has "
            "several hosts no sooner than four minutes after the loss; by itself it waits for max_unheard and "
            "reschedule_unknown of `qconf -sconf` (0:0:0: for the host)"
        )
    if job.state == "SUSPENDED":
        return next(words.format(id=job.job_id) for letter, words in _SUSPENDED.items() if letter in job.letters)
    if job.state == "HELD":
        held = f"qrls {job.job_id} releases it, or an administrator if one holds it"
        return held if not job.after else ""
    if job.state in ("PENDING", "REQUEUED") and not reasons:
        return "no reason from Grid Engine: qstat -g c shows what is free, hpcgender sites check what there is"
    return ""
