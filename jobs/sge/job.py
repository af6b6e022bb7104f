"""A submitted job: its state, polled for all jobs in one call, its end, and how to cancel it."""

from __future__ import annotations

import time
from typing import Any

from submitit.core import core, logger, utils

from ..command import SchedulerError
from . import qstat

GONE_SECONDS = 60.0
"""How long qacct may lag behind qstat before a job without a record is taken for deleted."""

_DONE = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
_BY_NUMBER = 3
"""From how many ended jobs on qacct is asked for all of this user's at once."""


class SgeInfoWatcher(core.InfoWatcher):
    """Asks qstat for all jobs at once, and qacct only for those that qstat no longer lists."""

    def __init__(self, delay_s: int = 60) -> None:
        super().__init__(delay_s)
        self._gone: dict[str, float] = {}
        self._cancelled: set[str] = set()

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """PENDING, HELD, RUNNING, SUSPENDED, REQUEUED, CANCELLING, COMPLETING, or one of the four ends."""
        return str(self.get_info(job_id, mode=mode).get("State", "UNKNOWN"))

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        return self.get_state(job_id, mode=mode) in _DONE

    def clear(self) -> None:
        super().clear()
        self._gone.clear()

    def cancelled(self, job_id: str) -> None:
        """Notes that the job was cancelled, so that its end is not taken for a failure."""
        self._cancelled.add(job_id)

    def update(self) -> None:
        """Updates the state of all registered jobs that are not done."""
        self._last_status_check = time.time()
        to_check = sorted(self._registered - self._finished)
        if not to_check:
            return
        self._num_calls += 1
        try:
            live = qstat.query()
        except SchedulerError as error:
            logger.get_logger().warning(f"Call #{self.num_calls} - {error}; states may be out of date.")
            return
        for job_id in to_check:
            # An array's own id stands for its first task.
            job = live.get(_grid_engine_id(job_id)) or live.get(f"{job_id}.1")
            if job:
                self._gone.pop(job_id, None)
                self._info_dict[job_id] = _live_info(job)
            else:
                self._gone.setdefault(job_id, time.time())
        self._update_gone([job_id for job_id in to_check if job_id in self._gone])
        self._finished |= {job_id for job_id in to_check if self.is_done(job_id, mode="cache")}

    def _update_gone(self, job_ids: list[str]) -> None:
        records: dict[str, qstat.Record] = {}
        readable = True
        try:
            records = self._ask_qacct(job_ids)
        except SchedulerError as error:
            readable = False
            logger.get_logger().warning(f"Call #{self.num_calls} - {error}; how ended jobs did is not known.")
        for job_id in job_ids:
            before = self._info_dict.get(job_id, {})
            cancelled = job_id in self._cancelled or before.get("State") == "CANCELLING"
            record = records.get(_grid_engine_id(job_id)) or records.get(f"{job_id}.1")
            if record:
                self._info_dict[job_id] = _ended_info(record, cancelled)
            elif cancelled:
                self._info_dict[job_id] = {**before, "State": "CANCELLED", "Reason": "deleted"}
            elif time.time() < self._gone[job_id] + GONE_SECONDS:
                self._info_dict[job_id] = {**before, "State": "COMPLETING"}
            elif readable:
                reason = "deleted while it waited: it is gone from the queue, and qacct has no record of it"
                self._info_dict[job_id] = {**before, "State": "CANCELLED", "Reason": reason}
            else:
                reason = "it is gone from the queue, and how it ended is unknown, as qacct fails"
                self._info_dict[job_id] = {**before, "State": "FAILED", "Reason": reason}

    def _ask_qacct(self, job_ids: list[str]) -> dict[str, qstat.Record]:
        numbers = {job_id.partition("_")[0] for job_id in job_ids}
        if not numbers:
            return {}
        found: dict[str, qstat.Record] = {}
        if len(numbers) > _BY_NUMBER:
            since = min(float(self._info_dict.get(job_id, {}).get("Time", self._gone[job_id])) for job_id in job_ids)
            found = qstat.ended(since=since - 1)
            # The rest may have ended before the first poll; each is asked for once before it is given up.
            late = [job_id for job_id in job_ids if time.time() >= self._gone[job_id] + GONE_SECONDS]
            numbers = {job_id.partition("_")[0] for job_id in late if _grid_engine_id(job_id) not in found}
        for number in sorted(numbers):
            found |= qstat.ended(job_id=number)
        return found


class SgeJob(core.Job[core.R]):
    """A job on Grid Engine; `job_id` is `12`, or `12_3` for task 3 of an array."""

    _cancel_command = "qdel"
    watcher = SgeInfoWatcher()

    def cancel(self, check: bool = True) -> None:
        """Deletes the job; nothing if it has ended. `check`: raises RuntimeError, with one line, if qdel fails."""
        self.watcher.cancelled(self.job_id)
        try:
            qstat.call(self._cancel_command, _grid_engine_id(self.job_id))
        except SchedulerError as error:
            if check and "does not exist" not in str(error):
                raise

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        info = self.watcher.get_info(self.job_id, mode="cache")
        if info.get("State") in ("TIMEOUT", "CANCELLED") or (info.get("State") == "FAILED" and not info.get("Start")):
            self._results_timeout_s = 0  # killed, or it never ran: there is no result to wait for
        try:
            outcome: tuple[str, Any] = super()._get_outcome_and_result()
        except utils.UncompletedJobError as error:
            reason = self.watcher.get_info(self.job_id, mode="cache").get("Reason")
            raise utils.UncompletedJobError(f"{error}\nGrid Engine: {reason}" if reason else str(error)) from error
        return outcome


def _grid_engine_id(job_id: str) -> str:
    return job_id.replace("_", ".")


def _live_info(job: qstat.Job) -> dict[str, str]:
    start = str(job.time) if job.host else ""
    info = {"State": job.state, "Letters": job.letters, "Time": str(job.time), "Start": start, "Host": job.host}
    return {**info, "Reason": f"error state ({job.letters}): {job.reason}"} if job.state == "FAILED" else info


def _ended_info(record: qstat.Record, cancelled: bool) -> dict[str, str]:
    # What qdel killed looks as what anything else killed.
    deleted = cancelled and record.state == "FAILED" and record.signal is not None
    return {
        "State": "CANCELLED" if deleted else record.state,
        "Time": str(record.start or ""),
        "Start": str(record.start or ""),
        "Host": record.host,
        "ExitCode": str(record.exit_code),
        "Reason": "deleted" if deleted else record.reason,
    }
