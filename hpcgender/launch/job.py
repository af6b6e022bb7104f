"""What a job that was submitted from here runs on its first host: the launcher itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpcgender.commands import HPCGENDER
from hpcgender.launch.attempt import RECORD
from jobs.schedulers import find_allocation
from shard_tools.base.contracts import SUBMISSIONS


def launch_in_job(argv: tuple[str, ...], results: str, stamp: str) -> None:
    """Runs `hpcgender launch ARGV` with the record that the submission made, and ends with its exit code."""
    job_id = find_allocation(os.environ).job_id
    os.environ[RECORD] = str(Path(results) / SUBMISSIONS / f"{stamp}-{job_id}")
    for log in Path(os.environ[RECORD]).glob(f"{job_id}_0_log.*"):  # the executor's, which nothing is written to
        log.unlink()
    if code := HPCGENDER.run(["launch", *argv]):
        sys.exit(code)
