"""`hpcgender plan`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.commands.doctor import DOCTOR, EXAMINATION
from hpcgender.commands.launch import minutes
from hpcgender.data.packs import read_packs, validation_packs
from hpcgender.models.config import ModelConfig
from hpcgender.models.registry import check_model
from hpcgender.plan.figures import GPUS
from shard_tools.base.commands import Command, default_is
from shard_tools.base.errors import UserError, unknown
from shard_tools.manifest import Manifest, read_manifest

SHORTEST = 10
"""Minutes: a shorter job would hardly do more than begin and stop."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Estimates what a training takes before it starts: time, GPU hours, storage, cores, memory and requeues. From what
    hpcgender doctor has measured, or for a GPU that it has not seen from published figures."""

    data: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data/shards")
    """Packed data set."""
    limit: int = 0
    """Train on a sample of at most so many images; 0: all."""
    val_data: Annotated[Path | None, default_is("that of --data", "DIR")] = None
    """Packed data set to validate on."""
    val_split: str = "val"
    """Split to validate on; none: no validation."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "se_resnet50"
    """Model to train."""
    width: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """Width of the model, as in hpcgender train."""
    image_size: int = 112
    """Height and width of the network's input in pixels."""
    batch_size: int = 256
    """Global batch size: images per step over all processes."""
    epochs: int = 50
    """Number of epochs."""
    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: Annotated[int | None, default_is("as examined, else 1", "N")] = None
    """GPUs, or without GPUs processes, per node."""
    gpu: Annotated[str, default_is("that of the examination", "NAME")] = ""
    """Kind of GPU: v100, a100, h100, h200 or rtx3090."""
    time: Annotated[str, tyro.conf.arg(metavar="TIME")] = "24h"
    """Time limit of a job."""
    examination: Annotated[
        Path | None, tyro.conf.arg(name="from"), default_is(f"{DOCTOR / EXAMINATION}, if it is of that GPU", "FILE")
    ] = None
    """What hpcgender doctor has measured."""
    json: bool = False
    """Print JSON instead of a table."""

    def check(self) -> None:
        """Raises UserError for what cannot be planned."""
        check_model(self.model)
        for name in ("batch_size", "epochs", "nodes", "gpus_per_node"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
        ModelConfig(model=self.model, width=self.width).check_width()
        ModelConfig(model=self.model).check_image_size(self.image_size)
        if self.gpu and self.gpu.lower() not in GPUS:
            raise unknown("GPU", self.gpu, list(GPUS))
        if minutes(self.time, "--time") < SHORTEST:
            raise UserError(f"--time {self.time}: give the time limit of a job, at least {SHORTEST} minutes")
        if self.limit < 0:
            raise UserError(f"--limit {self.limit}: give a number of images, or 0 for all")
        read_manifest(self.data).split("train")
        self.validated()

    def validated(self) -> tuple[Manifest, ...]:
        """The data set to validate on, or none; UserError if it lacks the split."""
        packs = validation_packs(read_packs(self.data), self.val_data, self.val_split)
        if self.val_data or self.val_split != "val":
            for pack in packs:
                pack.manifest.split(self.val_split)
        return tuple(pack.manifest for pack in packs if self.val_split in pack.manifest.splits)


COMMANDS = (
    Command(
        name="plan",
        summary="estimate what a training takes: time, GPU hours, storage, memory, requeues",
        options=PlanConfig,
        work="hpcgender.plan.plan:plan",
        launched=False,
    ),
)
