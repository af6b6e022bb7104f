"""Draws a data set of illustrated faces into files, for trying the pipeline without any person's photograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from shard_tools.base.errors import UserError
from shard_tools.base.files import new_directory
from shard_tools.base.progress import track
from shard_tools.synthetic.drawing import draw_face
from shard_tools.synthetic.subjects import Job, jobs, morph_name, sample_pictures, sample_subject, utkface_name
from shard_tools.workers import Workers

Names: TypeAlias = Literal["morph", "utkface"]


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Draw a data set of synthetic faces, labelled by their file names."""

    out: Path
    """Folder to draw into; must not exist yet or be empty."""
    count: int = 2400
    """Number of pictures. A smaller number draws the first ones of a larger number."""
    seed: int = 0
    """The same seed draws the same files, byte for byte."""
    size: int = 112
    """Side of the square pictures in pixels."""
    names: Names = "morph"
    """morph: subject, picture, gender, age, as in 000017_01M46.JPG. utkface: age, gender (0 male, 1 female), group of
    drawn skin tones (0 to 4), time stamp, as in 46_0_2_20170101000500000.jpg."""
    quality: int = 90
    """JPEG quality, 1 to 95."""
    workers: int = 1
    """Number of processes. Any number draws the same files."""


_NAMING = {"morph": morph_name, "utkface": utkface_name}


def run_job(drawing: tuple[SyntheticConfig, Path], job: Job) -> Job:
    """Draws the job's pictures into a folder and returns the job."""
    config, folder = drawing
    subject = sample_subject(config.seed, job.subject)
    for picture in sample_pictures(config.seed, subject)[: job.pictures]:
        image = draw_face(subject, picture, config.size)
        image.save(folder / _NAMING[config.names](subject, picture), "JPEG", quality=config.quality)
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
    with new_directory(config.out) as folder, Workers((config, folder), config.workers) as workers:
        drawn = (job for job in workers.map(run_job, todo) for _ in range(job.pictures))
        men = sum(job.man for job in track(drawn, config.count, "drawing"))
    print(f"{config.count} pictures of {len(todo)} subjects, {men} of men, {config.count - men} of women: {config.out}")
