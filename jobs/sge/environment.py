"""Inside a job: who this task is, and how it checkpoints and asks to run again before its time is over."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import ClassVar

from submitit.core.job_environment import JobEnvironment, SignalHandler
from submitit.core.logger import get_logger
from submitit.core.utils import DelayedSubmission, JobPaths

from .hostfile import granted_hosts
from .qstat import REQUEUE


class SgeJobEnvironment(JobEnvironment):
    """A task of a Grid Engine job; what Grid Engine does not provide itself, `tasks` and `node` put into variables."""

    _env: ClassVar[dict[str, str]] = {
        "job_id": "JOB_ID",
        "array_job_id": "JOB_ID",
        "array_task_id": "SGE_TASK_ID",
        "num_tasks": "SUBMITIT_SGE_NUM_TASKS",
        "num_nodes": "SUBMITIT_SGE_NUM_NODES",
        "node": "SUBMITIT_SGE_NODE",
        "global_rank": "SUBMITIT_SGE_GLOBAL_RANK",
        "local_rank": "SUBMITIT_SGE_LOCAL_RANK",
    }

    @property
    def array_job_id(self) -> str | None:
        return super().array_job_id if self.array_task_id else None

    @property
    def array_task_id(self) -> str | None:
        task = super().array_task_id
        return task if task and task.isdigit() else None  # "undefined" outside arrays

    @property
    def hostnames(self) -> Sequence[str]:
        """The job's hosts, as Grid Engine names them; the first is where the job script runs."""
        hosts = os.environ.get("SUBMITIT_SGE_HOSTS")
        return hosts.split(",") if hosts else list(granted_hosts())

    def _handle_signals(self, paths: JobPaths, submission: DelayedSubmission) -> None:
        """Signals, and the timer that sends one: Grid Engine's own at h_rt comes too late to run again."""
        for path in (paths.submitted_pickle, paths.result_pickle) if self.global_rank == 0 else (paths.result_pickle,):
            # An attempt that was cut off while it wrote leaves this, and submitit refuses to write over it.
            path.with_suffix(".pkl.save_tmp").unlink(missing_ok=True)
        stop_at = os.environ.get("SUBMITIT_SGE_STOP_AT")
        handler = SgeSignalHandler(self, paths, submission, stop_at=float(stop_at) if stop_at else None)
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR1):  # USR1: -notify before the job is stopped
            signal.signal(number, handler.bypass)
        signal.signal(self._usr_sig(), handler.checkpoint_and_try_requeue)
        if stop_at:
            threading.Thread(target=_signal_at, args=(float(stop_at), self._usr_sig()), daemon=True).start()

    def _requeue(self, countdown: int) -> None:
        get_logger().info(f"Job {self.job_id} asks to run again ({countdown} remaining timeouts)")
        # Not os._exit: what the function started ends with it.
        raise SystemExit(REQUEUE)


class SgeSignalHandler(SignalHandler):
    """submitit's, with the exact time limit: its own check reports a time-out in all of a job's last 10 minutes."""

    def __init__(
        self, env: JobEnvironment, job_paths: JobPaths, delayed: DelayedSubmission, *, stop_at: float | None
    ) -> None:
        super().__init__(env, job_paths, delayed)
        self._stop_at = stop_at

    def has_timed_out(self) -> bool:
        return bool(super().has_timed_out()) if self._stop_at is None else time.time() >= self._stop_at


def _signal_at(stop_at: float, number: int) -> None:
    while (left := stop_at - time.time()) > 0:
        time.sleep(min(left, 60.0))
    get_logger().info("The job's time is nearly over.")
    os.kill(os.getpid(), number)
