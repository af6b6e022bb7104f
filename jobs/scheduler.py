"""The interface of all schedulers, and the plain data that it exchanges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jobs.hosts.supervisor import Node
from jobs.records import Resources, Submission
from jobs.site import Site

State = Literal[
    "pending", "held", "running", "suspended", "stopping", "error", "done", "failed", "cancelled", "timeout"
]

LIVE = frozenset({"pending", "held", "running", "suspended", "stopping", "error"})
"""States of jobs that have not ended. Grid Engine keeps one in error until a person helps."""

WAITING = frozenset({"pending", "held"})
"""States of jobs that have not begun."""

UNKNOWN = "unknown"
"""The state of a job that neither the queue nor accounting has."""


@dataclass(frozen=True)
class Host:
    """A granted machine: the name that the scheduler and the network know it by, and the cores granted on it."""

    name: str
    cpus: int


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What one job was granted, and by which scheduler. `hosts` begins with the host where the job script runs."""

    scheduler: Scheduler
    job_id: str
    hosts: tuple[Host, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One job, or an array of them: its name, what each asks for where, and what must have happened before."""

    name: str
    site: Site
    resources: Resources
    after: tuple[str, ...] = ()
    """Ids of the jobs that must succeed before."""
    after_end: tuple[str, ...] = ()
    """Ids of the jobs that must have ended before, however."""
    tasks: int = 1
    """More than one: an array of so many jobs."""
    at_once: int = 0
    """How many tasks of the array may run at the same time; 0: all."""
    logs: str = "logs"
    """Directory of its log, from the working directory or absolute."""

    @property
    def log(self) -> str:
        """Where its output goes, with %j for the job's id."""
        return f"{self.logs}/{self.name}.o%j"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, or one task of an array, as the scheduler has it."""

    job_id: str
    """As the scheduler's commands take it: `12`, of an array `12_3` (Slurm) or `12.3` (Grid Engine)."""
    state: State
    reason: str = ""
    """Why it waits or failed, in the scheduler's words; empty if there is no reason."""
    external: bool = False
    """Whether the reason is one that the job cannot have written into its record: out of memory, a lost node."""
    name: str = ""
    hosts: str = ""
    """Where it runs or ran, as `node[1-2]`; of Grid Engine the first host alone."""
    start: float | None = None
    """Unix time when it started, or is expected to."""
    left: float | None = None
    """Seconds of its time limit that are left."""
    max_memory: int = 0
    """The most that it held, bytes; 0 is unknown."""


@dataclass(frozen=True)
class Verdict:
    """What a scheduler says of a job that could run: its answer, and what a person should know before submitting it."""

    answer: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; but ".join(filter(None, (self.answer, *self.warnings)))


def array_id(job_id: str) -> str:
    """The id that was printed when a job was submitted: of its array, if it is a task of one."""
    return job_id.replace("_", ".").partition(".")[0]


class Scheduler(ABC):
    """One scheduler. Without state: each question goes to the scheduler's own commands.

    The methods that ask about or change jobs raise `jobs.command.SchedulerError` if the scheduler does not answer or
    refuses; those that are given a request raise UserError if it can never be met.
    """

    name: ClassVar[str]
    """What options, profiles and records call it. Its generic profile is `sites/<name>.toml`."""
    title: ClassVar[str]
    """What a person calls it."""
    has_queue: ClassVar[bool] = True
    """Whether jobs are submitted to it; else they are started on this machine, which all nodes of a job share."""
    orders_by_success: ClassVar[bool] = True
    """Whether a job never starts when one that it waits for has failed; else its launcher finds that out."""

    # This machine, and the job around this process

    @abstractmethod
    def is_here(self, environ: Mapping[str, str]) -> bool:
        """Whether jobs can be submitted from this machine."""

    @abstractmethod
    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        """What the job around this process was granted; None outside a job. UserError if that cannot be read."""

    def job_name(self, environ: Mapping[str, str]) -> str:
        """The name of the job around this process; empty if it has none."""
        return ""

    def restarts(self, environ: Mapping[str, str]) -> int:
        """How often the job around this process was started before."""
        return 0

    def submitted(self, allocation: Allocation, environ: Mapping[str, str]) -> tuple[str, str]:
        """The file that was submitted as this job, and what was in it; empty where that is not known."""
        return "", ""

    def asked_for(self, allocation: Allocation, environ: Mapping[str, str]) -> Mapping[str, Any]:
        """The settings of a site by which the job around this process was submitted, as far as the scheduler tells."""
        return {}

    def end_time(self, allocation: Allocation, environ: Mapping[str, str]) -> float | None:
        """When this job will be ended, in Unix time, as far as is known now; None if never or unknown."""
        return None

    def gpu_variable(self, site: Site) -> str:
        """The environment variable that has the numbers of the granted GPUs; empty if CUDA_VISIBLE_DEVICES has."""
        return ""

    # Requeueing the job around this process

    @abstractmethod
    def is_cancelled(self, allocation: Allocation, stopped_by: str | None) -> bool:
        """Whether this job is being ended for good; `stopped_by` is what asked its ranks to stop, if anything did."""

    def is_requeued(self, allocation: Allocation, environ: Mapping[str, str]) -> bool:
        """Whether the scheduler itself has put this job back into the queue already."""
        return False

    def cannot_requeue(self, allocation: Allocation) -> str:
        """Why this job can never go back into the queue, in a few words; empty if it can."""
        return ""

    @abstractmethod
    def requeue(self, allocation: Allocation, until: float) -> str:
        """Puts this job back into the queue; returns why that failed, or nothing. It is to end with 99, soon.

        A scheduler that is down is asked again until the Unix time `until` (`jobs.patience.asked_again`).
        """

    def await_loss(self, host: str) -> None:
        """Waits until the scheduler knows that a host is lost, where it would otherwise use it again."""
        return

    # The job's other hosts

    def node_on(
        self, host: Host, index: int, command: Sequence[str], directory: str, environ: Mapping[str, str]
    ) -> Node:
        """How to run `command` in `directory` on host number `index` of this job, with its input and its output.

        `directory` is the working directory of the launcher, which runs on host 0.
        """
        return Node(host=host.name, argv=command, environ=environ)

    @abstractmethod
    def try_on_host(self, host: str) -> str:
        """A command with which a person can see in a job why nothing starts on a host."""

    # Submitting

    @abstractmethod
    def check(self, request: Request, record: Path) -> Verdict:
        """Asks whether such a job could ever run. UserError, with its message, if not.

        `record` is the directory of the job's record, with %j for its id.
        """

    @abstractmethod
    def preview(self, request: Request, record: Path) -> str:
        """The job's script as a person may read it, with all that is asked for."""

    @abstractmethod
    def submit(
        self, request: Request, record: Path, task: Callable[..., object], arguments: Sequence[Sequence[Any]]
    ) -> tuple[list[str], Path]:
        """Submits `task(*each)` for each of `arguments`, to run on the first host of a job of its own.

        Several are one array of `request.tasks`. Returns the ids in that order and the file of the script.
        """

    # All jobs of this user

    @abstractmethod
    def query(self) -> dict[str, Job]:
        """This user's jobs by id, in one call: all that wait or run, and those that ended if it still has them."""

    @abstractmethod
    def ended(self, job_ids: Collection[str], since: float) -> dict[str, Job]:
        """What accounting has of jobs, or of the tasks of arrays, that `query` did not have, by id, in one call.

        All were submitted after `since`, Unix time. Unknown ones are left out.
        """

    def find(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Some jobs, or the tasks of some arrays, by id, as the queue or else accounting has them."""
        queued = {job_id: job for job_id, job in self.query().items() if {job_id, array_id(job_id)} & {*job_ids}}
        missing = {*job_ids} - {name for job_id in queued for name in (job_id, array_id(job_id))}
        return self.ended(missing, 0.0) | queued

    def details(self, job_id: str) -> tuple[str, ...]:
        """More lines about one job that waits, is in error or has ended."""
        return ()

    def raw_id(self, job_id: str) -> str:
        """The id of its own that a task of an array has besides its id, and its log may have; empty without one."""
        return ""

    def meaning(self, job_id: str, reason: str) -> str:
        """What one of its reasons for waiting means in plain words; empty if it is plain enough."""
        return ""

    def advice(self, job_id: str, reason: str, details: Sequence[str]) -> str:
        """What a person can do about a job that waits for `reason`, or has not ended; empty if nothing."""
        return ""

    @abstractmethod
    def cancel(self, job_id: str) -> str:
        """Asks for the end of a job or of a whole array; returns what to say once it is seen: `cancelled job 12`."""

    def without_trace(self, submission: Submission) -> tuple[str, str]:
        """State and reason of a job that has not ended by its record, and is neither queued nor accounted for."""
        if submission.attempts:
            return UNKNOWN, "neither in the queue nor accounted for, and with no end"
        return UNKNOWN, "not in the queue, and it never started"
