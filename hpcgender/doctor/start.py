"""Where an examination begins: on the spot, or through the launcher, for other nodes without importing PyTorch."""

from __future__ import annotations

import os

from hpcgender.commands.doctor import DoctorConfig
from hpcgender.commands.launch import LaunchConfig
from hpcgender.doctor import machine
from jobs.machine import visible_gpus
from jobs.schedulers import LOCAL
from shard_tools.base.errors import FAILED, UserError

JOB_TIME = "30m"
"""Time limit of a job that examines its nodes."""


def doctor(config: DoctorConfig) -> int:
    """Examines this machine or a job's nodes, prints what was found, and returns 1 if anything is red."""
    config.check()
    in_job = "RANK" in os.environ
    if config.nodes and in_job:
        raise UserError(f"--nodes {config.nodes} is for hpcgender doctor itself: give --nodes to the launcher")
    if config.nodes and not in_job:
        return launched(config)
    found = machine.packages(config.backend)
    if found.state == "red":  # nothing else can be examined
        print(f"{found.check}: {found.found}: {found.advice}")
        return FAILED
    if not in_job and len(visible_gpus(os.environ)) > 1:
        return launched(config)
    from hpcgender.doctor.examination import examine

    return examine(config)


def launched(config: DoctorConfig) -> int:
    """Submits the examination as a job, or runs it on the hosts around this process, a process for each GPU."""
    from hpcgender.launch.start import launch

    words = {"data": config.data, "model": config.model, "image-size": config.image_size, "backend": config.backend}
    words |= {"batch-size": config.batch_size}
    options = [word for name, value in words.items() if value is not None for word in (f"--{name}", str(value))]
    command = ("doctor", *options, *(("--json",) if config.json else ()))
    if config.nodes:
        return launch(LaunchConfig(nodes=config.nodes, time=JOB_TIME, command=command))
    return launch(LaunchConfig(site=LOCAL.name, command=command))
