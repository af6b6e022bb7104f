"""Draws a data set of illustrated faces into files, for trying the pipeline without any person's photograph."""

from __future__ import annotations

from pathlib import Path

from shard_tools.base.errors import UserError
from shard_tools.base.files import NamedFile, new_directory
from shard_tools.base.progress import track
from shard_tools.base.text import plural
from shard_tools.commands.synthetic import SyntheticConfig
from shard_tools.synthetic.drawing import draw_face
from shard_tools.synthetic.subjects import Job, jobs, morph_name, sample_pictures, sample_subject, utkface_name
from shard_tools.workers import Workers

_NAMING = {"morph": morph_name, "utkface": utkface_name}


def run_job(drawing: tuple[SyntheticConfig, Path], job: Job) -> Job:
    """Draws the job's pictures into a directory and returns the job."""
    config, directory = drawing
    subject = sample_subject(config.seed, job.subject)
    for picture in sample_pictures(config.seed, subject)[: job.pictures]:
        image = draw_face(subject, picture, config.size)
        with NamedFile(directory / _NAMING[config.names](subject, picture)) as file:
            image.save(file, "JPEG", quality=config.quality)
    return job


def check_config(config: SyntheticConfig) -> None:
    """Raises UserError for options outside their range."""
    ranges = {
        "count": (1, 1_000_000),
        "seed": (0, 2**63 - 1),
        "size": (32, 4096),
        "quality": (1, 95),
        "workers": (1, 1024),
    }
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise UserError(f"--{name} {value} is out of range: give {low} to {high}")


def draw_faces(config: SyntheticConfig) -> None:
    """Draws the data set into `config.out`."""
    check_config(config)
    todo = list(jobs(config.seed, config.count))
    with new_directory(config.out) as directory, Workers((config, directory), config.workers) as workers:
        drawn = (job for job in workers.map(run_job, todo) for _ in range(job.pictures))
        men = sum(job.man for job in track(drawn, config.count, "drawing"))
    counted = f"{plural(config.count, 'picture')} of {plural(len(todo), 'subject')}"
    print(f"{counted}, {men:,} of men, {config.count - men:,} of women: {config.out}")
