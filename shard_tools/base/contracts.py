"""Names that jobs and the commands in them agree on."""

from __future__ import annotations

SUBMISSIONS = "submissions"
"""The directory beside a command's results in which the records of its jobs are."""

DEVICE = "HPCGENDER_DEVICE"
"""The environment variable that asks for a device: cpu although there are GPUs, or cuda, so that none is an error."""

STARTED = "JOBS_STARTED"
"""The environment variable in which ranks find when their job began, in seconds of Unix time."""
