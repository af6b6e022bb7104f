"""Slurm behind the interface of all schedulers.

squeue and scontrol list an ended job for MinJobAge, 5 minutes by default. After that only sacct has it, where there is
an accounting database.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.command import LIMIT_SECONDS, SchedulerError, answer, call
from jobs.hosts.supervisor import Node
from jobs.patience import asked_again, seconds_left
from jobs.preflight import Hint, try_script
from jobs.scheduler import LIVE, Allocation, Host, Job, Request, Scheduler, Verdict, array_id
from jobs.slurm import answers, limits
from jobs.slurm.nodelist import expand_counts, expand_nodelist
from jobs.slurm.sbatch import parameters, script
from jobs.submit import submit_with
from shard_tools.base.errors import UserError

_CONFIGURATIONS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")
_AWAY = re.compile(
    r"[Uu]nable to contact slurm|connection failure|[Mm]essage (send|receive) failure|[Tt]imed out|gave no answer"
    r"|standby mode|Zero Bytes were transmitted|configuration source|backing off|try again later"
)
"""What scontrol says while its controller is down, busy, or being replaced by another."""
_HINTS = (Hint("partition", "partitions", ("sinfo", "-h", "-o", "%R")),)


class Slurm(Scheduler):
    """Slurm, through sbatch, srun, squeue, sacct, scontrol and scancel."""

    name = "slurm"
    title = "Slurm"

    def is_here(self, environ: Mapping[str, str]) -> bool:
        if shutil.which("sbatch") is None:
            return False
        if any(Path(path).exists() for path in (environ.get("SLURM_CONF", ""), *_CONFIGURATIONS) if path):
            return True
        return "Slurmctld" in answer(call, "scontrol", "ping")  # no file, but slurmd or DNS may provide it

    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        job_id = environ.get("SLURM_JOB_ID")
        if not job_id:
            return None
        if task := environ.get("SLURM_ARRAY_TASK_ID"):  # what squeue shows, and all that scancel knows a task by
            job_id = f"{environ['SLURM_ARRAY_JOB_ID']}_{task}"
        nodelist = environ.get("SLURM_JOB_NODELIST", "")
        names = expand_nodelist(nodelist)
        if not names:
            raise UserError(
                f"SLURM_JOB_ID is set, but SLURM_JOB_NODELIST={nodelist!r} names no host: run inside sbatch or salloc, "
                "or on this machine with --scheduler local"
            )
        cpus = expand_counts(environ.get("SLURM_JOB_CPUS_PER_NODE", environ.get("SLURM_CPUS_ON_NODE", "1")))
        if len(cpus) < len(names):
            cpus += cpus[-1:] * (len(names) - len(cpus))
        hosts = tuple(Host(name, count) for name, count in zip(names, cpus, strict=False))
        return Allocation(scheduler=self, job_id=job_id, hosts=hosts)

    def job_name(self, environ: Mapping[str, str]) -> str:
        return environ.get("SLURM_JOB_NAME", "")

    def restarts(self, environ: Mapping[str, str]) -> int:
        return int(environ.get("SLURM_RESTART_COUNT") or 0)

    def submitted(self, allocation: Allocation, environ: Mapping[str, str]) -> tuple[str, str]:
        command = re.search(r"\bCommand=(.*?) WorkDir=", _job(allocation))
        text = answer(call, "scontrol", "write", "batch_script", allocation.job_id, "-")
        return answers.script_file(command[1]) if command else "", text

    def asked_for(self, allocation: Allocation, environ: Mapping[str, str]) -> Mapping[str, Any]:
        return answers.asked_for(_job(allocation))

    def end_time(self, allocation: Allocation, environ: Mapping[str, str]) -> float | None:
        return answers.end_time(_job(allocation))

    def is_cancelled(self, allocation: Allocation, stopped_by: str | None) -> bool:
        """Whether its controller calls the job anything but RUNNING: scancel, or a limit that came first.

        Where it does not answer, requeueing says so.
        """
        try:
            job = call("scontrol", "show", "job", "-o", allocation.job_id)
        except SchedulerError as error:
            return "Invalid job id" in str(error)
        return re.search(r"\bJobState=RUNNING\b", job) is None

    def is_requeued(self, allocation: Allocation, environ: Mapping[str, str]) -> bool:
        """Whether the job was preempted, or requeued with `scontrol requeue`.

        Its state is COMPLETING then, as after scancel, but it counts one restart more than when this attempt began.
        """
        restarts = re.search(r"\bRestarts=(\d+)", _job(allocation))
        return restarts is not None and int(restarts[1]) > self.restarts(environ)

    def cannot_requeue(self, allocation: Allocation) -> str:
        job = _job(allocation)
        if re.search(r"\bBatchFlag=0\b", job):
            return "Slurm requeues no job of salloc"
        return "it was submitted with --no-requeue" if re.search(r"\bRequeue=0\b", job) else ""

    def requeue(self, allocation: Allocation, until: float) -> str:
        tried = False

        def ask() -> str:
            nonlocal tried
            if tried and self.is_requeued(allocation, os.environ):  # it has heard what it did not answer
                return ""
            tried = True
            try:
                limit = min(LIMIT_SECONDS, seconds_left(until))
                call("scontrol", "requeue", allocation.job_id, seconds=limit)
            except SchedulerError as error:
                return f"scontrol requeue {allocation.job_id}: {error}"
            return ""

        return asked_again(ask, lambda failed: bool(_AWAY.search(failed)), until)

    def node_on(
        self, host: Host, index: int, command: Sequence[str], directory: str, environ: Mapping[str, str]
    ) -> Node:
        srun = (
            "srun",
            "-QQ",  # no messages of its own about a task's exit code; the command has written more
            *("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", f"--nodelist={host.name}"),
            f"--cpus-per-task={host.cpus}",  # not inherited from sbatch since Slurm 22.05
            *("--overlap", "--export=ALL", "--mpi=none", f"--chdir={directory}"),
        )
        return Node(host=host.name, argv=(*srun, *command), environ=environ)

    def try_on_host(self, host: str) -> str:
        return f"srun --overlap --nodes=1 --ntasks=1 --nodelist={host} hostname"

    def check(self, request: Request, record: Path) -> Verdict:
        text = script(request, record)
        if request.tasks > 1 and request.tasks > (most := limits.most_tasks()):
            raise UserError(
                f"{self.title} takes at most {most} tasks in an array, its MaxArraySize, and {request.name} has "
                f"{request.tasks}: submit fewer at once, and then the others"
            )
        cluster = limits.look(request)
        wanted = limits.Wanted.of(request)
        if reasons := limits.never(wanted, cluster):
            raise UserError(f"{self.title} would never start {request.name}: {'; '.join(reasons)}")
        try:
            tried = ("sbatch", "--test-only")
            return Verdict(try_script(self.title, request.name, text, lambda file: (*tried, file), _HINTS))
        except UserError as error:
            if found := re.search(r"\b(QOS|Assoc)\w+", str(error)):
                raise UserError(f"{error} ({answers.meaning('', found[0])})") from None
            if limits.NOT_NOW not in str(error) or not (nodes := limits.missing_now(wanted, cluster)):
                raise
            return Verdict("", (f"not now: no jobs are taken at present by {', '.join(nodes)}",))

    def preview(self, request: Request, record: Path) -> str:
        return script(request, record)

    def submit(
        self, request: Request, record: Path, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
    ) -> tuple[list[str], Path]:
        import submitit

        executor = submitit.SlurmExecutor(record, python=f"exec {request.site.launcher_python}")
        executor.update_parameters(**parameters(request))
        return submit_with(executor, self.title, request, task, arguments)

    def query(self) -> dict[str, Job]:
        return answers.parse_squeue(
            call("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", answers.FIELDS)
        )

    def find(self, job_ids: Collection[str]) -> dict[str, Job]:
        try:  # also those of other users
            found = answers.parse_squeue(
                call("squeue", "-h", "-r", "-t", "all", "-j", ",".join(job_ids), "-o", answers.FIELDS)
            )
        except SchedulerError as error:
            if "Invalid job id" not in str(error):
                raise
            found = {}
        missing = {*job_ids} - {name for job_id in found for name in (job_id, array_id(job_id))}
        return self.ended(missing, 0.0) | found

    def ended(self, job_ids: Collection[str], since: float) -> dict[str, Job]:
        if not job_ids:
            return {}
        try:
            text = call("sacct", "-X", "-n", "-P", "-o", answers.ACCOUNTED, "-j", ",".join(job_ids))
        except SchedulerError as error:
            if "accounting storage is disabled" in str(error):
                return {}
            raise
        return {job_id: job for job_id, job in answers.parse_sacct(text).items() if job.state not in LIVE}

    def details(self, job_id: str) -> tuple[str, ...]:
        try:
            job = call("scontrol", "-o", "show", "job", job_id)
        except SchedulerError as error:
            if "Invalid job id" in str(error):
                return ()
            raise
        limited = re.search(r"\bJobState=PENDING Reason=(QOS|Assoc)", job.partition("\n")[0])
        return (*answers.parse_scontrol(job), *(limits.of_job(job.partition("\n")[0]) if limited else ()))

    def raw_id(self, job_id: str) -> str:
        """What --output has in place of %j."""
        if found := re.search(r"\bJobId=(\d+)", answer(call, "scontrol", "-o", "show", "job", job_id)):
            return found[1]
        return answer(call, "sacct", "-X", "-n", "-P", "-o", "JobIDRaw", "-j", job_id).strip()

    def meaning(self, job_id: str, reason: str) -> str:
        return answers.meaning(job_id, reason)

    def cancel(self, job_id: str) -> str:
        call("scancel", job_id)
        return f"cancelled job {job_id}"


def _job(allocation: Allocation) -> str:
    return answer(call, "scontrol", "show", "job", "-o", allocation.job_id)
