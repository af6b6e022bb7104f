"""`hpcgender doctor`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.data.config import BACKEND, Backend
from hpcgender.models.config import ModelConfig
from hpcgender.models.registry import check_model
from shard_tools.base.commands import RUNS, Command, default_is
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest

DOCTOR = RUNS / "doctor"
"""Directory of its results."""
SMALLEST_DRAWN = 32
EXAMINATION = "examination.json"
"""What the last examination has found, for `hpcgender plan` and other programs."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Examines a machine, or the nodes of a job, before you train there: packages, GPUs, speed, network, storage, time
    limit. Green: fine. Yellow: works, with a disadvantage. Red: will fail; the exit code is then 1."""

    nodes: Annotated[int | None, default_is("this machine, on the spot", "N")] = None
    """Number of nodes: a job of so many is submitted, or in a job so many of its hosts are examined. Other resources:
    python -m hpcgender.launch OPTIONS -- doctor."""
    data: Annotated[Path | None, default_is("drawn faces", "DIR")] = None
    """Packed data set to read and decode."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "se_resnet50"
    """Model whose training steps are timed."""
    image_size: int = 112
    """Height and width of the network's input in pixels."""
    batch_size: Annotated[int | None, default_is("256 on a GPU, 16 on a CPU", "N")] = None
    """Images of a step in each process."""
    backend: Backend = BACKEND
    """Decoder and augmentation, as in hpcgender train."""
    json: bool = False
    """Print JSON instead of a table; it is written to runs/doctor/examination.json in any case."""

    def check(self) -> None:
        """Raises UserError for what cannot be examined."""
        check_model(self.model)
        for name, value in (("nodes", self.nodes), ("batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise UserError(f"--{name} {value}: at least 1 is needed")
        ModelConfig(model=self.model).check_image_size(self.image_size)
        if self.data is not None:
            read_manifest(self.data)
        elif self.image_size < SMALLEST_DRAWN:
            raise UserError(
                f"--image-size {self.image_size}: drawn faces have {SMALLEST_DRAWN} pixels or more: give --data"
            )


class Doctor(Command[DoctorConfig]):
    """The examination of the nodes of a job."""

    def results(self, options: DoctorConfig) -> Path:
        return DOCTOR

    def data(self, options: DoctorConfig) -> Path | None:
        return options.data

    def job_name(self, options: DoctorConfig) -> str:
        return self.name

    def shared(self, options: DoctorConfig) -> bool:
        return True


COMMANDS = (
    Doctor(
        name="doctor",
        summary="examine a machine, or the nodes of a job, before you train there",
        options=DoctorConfig,
        work="hpcgender.doctor.start:doctor",
        distributed=True,
    ),
)
