"""Submits functions to Grid Engine: one job each, or arrays of them."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.core import core, utils

from ..command import SUBMIT_SECONDS, SchedulerError
from . import qstat
from .job import SgeJob
from .script import Parameters, qsub_command, script_text


class SgeExecutor(core.PicklingExecutor):
    """Runs functions on a cluster with Grid Engine; see `Parameters` for what `update_parameters` takes.

    folder: where logs, functions and results are kept; all hosts see it under this path. `%j` in it is the job's id.
    max_num_timeout: how often a function that can checkpoint is run again after its time was over.
    python: the command that starts Python there, a piece of bash, as `apptainer exec image.sif python`; default: this
    one. Raises RuntimeError where there is no Grid Engine.
    """

    job_class = SgeJob

    def __init__(
        self,
        folder: str | Path,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        super().__init__(folder, max_num_timeout=max_num_timeout, max_pickle_size_gb=max_pickle_size_gb)
        self.python = shlex.quote(sys.executable) if python is None else python
        if self.affinity() < 0:
            raise RuntimeError("there is no qsub and qconf here: is this a host of a Grid Engine cluster?")

    @classmethod
    def affinity(cls) -> int:
        """2 on a host of a cluster, 0 where Grid Engine's commands are but no cluster is set, -1 elsewhere.

        qconf, as PBS and Slurm's wrappers have a qsub, too.
        """
        if not (shutil.which("qconf") and shutil.which("qsub")):
            return -1
        return 2 if os.environ.get("SGE_ROOT") else 0

    @classmethod
    def _equivalence_dict(cls) -> core.EquivalenceDict:
        return {
            "name": "name",
            "timeout_min": "timeout_min",
            "mem_gb": "mem_gb",
            "nodes": "nodes",
            "cpus_per_task": "cpus_per_task",
            "gpus_per_node": "gpus_per_node",
            "tasks_per_node": "tasks_per_node",
        }

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return Parameters.names()

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - Parameters.names())
        if unknown:
            valid = ", ".join(sorted(Parameters.names()))
            raise ValueError(f"Grid Engine knows no parameter {', '.join(unknown)}: choose from {valid}")
        super()._internal_update_parameters(**kwargs)

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[utils.DelayedSubmission]
    ) -> list[core.Job[Any]]:
        if len(delayed_submissions) == 1:
            jobs: list[core.Job[Any]] = super()._internal_process_submissions(list(delayed_submissions))
            return jobs
        size = max_array_tasks() or len(delayed_submissions)
        chunks = [delayed_submissions[first : first + size] for first in range(0, len(delayed_submissions), size)]
        return [job for chunk in chunks for job in self._submit_array(chunk)]

    def _submit_array(self, delayed_submissions: Sequence[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        pickles = [folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for delayed, pickle in zip(delayed_submissions, pickles, strict=True):
            delayed.set_timeout(self._parameters.timeout_min, self.max_num_timeout)
            delayed.dump(pickle)
        self._throttle()
        array = self._submit(self._submitit_command_str, array=len(delayed_submissions))
        tasks = range(self._num_tasks())
        jobs: list[core.Job[Any]] = []
        for number, pickle in enumerate(pickles, start=1):
            job: SgeJob[Any] = SgeJob(folder=self.folder, job_id=f"{array}_{number}", tasks=tasks)
            job.paths.move_temporary_file(pickle, "submitted_pickle")
            jobs.append(job)
        return jobs

    def _submit_command(self, command: str) -> core.Job[Any]:
        job_id = self._submit(command, array=None)
        return SgeJob(folder=self.folder, job_id=job_id, tasks=range(self._num_tasks()))

    def _submit(self, command: str, array: int | None) -> str:
        """Writes the script, submits it, and returns the job's id. Raises FailedSubmissionError."""
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f".submission_file_{uuid.uuid4().hex}.sh"
        qsub = qsub_command(self._parameters, self.folder, script, array=array)
        script.write_text(script_text(self._parameters, self.folder, command, array=array is not None))
        try:
            job_id = self._get_job_id_from_submission_command(qstat.call(*qsub, seconds=SUBMIT_SECONDS))
        except SchedulerError as error:
            raise utils.FailedSubmissionError(str(error)) from error
        finally:
            text = script.read_text()
            script.unlink()
        paths = utils.JobPaths(self.folder, job_id=job_id if array is None else f"{job_id}_1")
        paths.folder.mkdir(parents=True, exist_ok=True)
        paths.submission_file.write_text(f"{text}\n# {shlex.join(qsub)}\n")
        return job_id

    @property
    def _parameters(self) -> Parameters:
        return Parameters(**self.parameters)

    @property
    def _submitit_command_str(self) -> str:
        return f"{self.python} -u -m submitit.core._submit {shlex.quote(str(self.folder))}"

    def _num_tasks(self) -> int:
        return self._parameters.tasks

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return script_text(self._parameters, self.folder, command)

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return qsub_command(self._parameters, self.folder, submission_file_path)

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        text = string if isinstance(string, str) else string.decode()
        # Other lines may go before it, a site's own.
        found = re.findall(r"^(\d+)(?:\.\d+-\d+:\d+)?\s*$", text, flags=re.MULTILINE)
        if not found:
            raise utils.FailedSubmissionError(f"qsub printed no job id: {text.strip()!r}")
        return str(found[-1])


@functools.cache
def max_array_tasks() -> int:
    """How many tasks an array may have here, `max_aj_tasks`; 0 if any number."""
    found = re.search(r"^max_aj_tasks\s+(\d+)", qstat.call("qconf", "-sconf"), flags=re.MULTILINE)
    return int(found[1]) if found else 0
