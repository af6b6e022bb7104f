"""`hpcgender show-batch`: its options, how a run's own take part, and what is true of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig, ReadConfig
from hpcgender.data.packs import joined, only_one, places_of, read_packs
from hpcgender.run_directory import CONFIG_JSON
from shard_tools.base.commands import Command
from shard_tools.base.documents import read_json, restored_part
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_file
from shard_tools.base.options import parse
from shard_tools.manifest import MANIFEST

DECIDES = tuple(field.name for field in fields(BatchConfig) if field not in fields(ReadConfig))
"""The options that decide what is in a batch."""

AGAIN = "it may be another version's; give its options without --run"
"""What to do about a run's config.json that cannot be used."""

T = TypeVar("T")
NotAnOption = Annotated[T, tyro.conf.Fixed, tyro.conf.SuppressFixed]


@dataclass(frozen=True, kw_only=True)
class ShowBatchConfig(BatchConfig):
    """Draws any batch of any run as a labelled picture, with exactly the pixels of the network's input, and lists its
    images.

    With --run, all options that decide the batch are the run's; contradicting them is an error.
    """

    run: Path | None = None
    """Run directory, e.g. runs/train: its config.json decides the batch; --data is needed if its data set has moved."""
    split: str = "train"
    """Split: train as in training, with augmentation; another one as in evaluation, in its order and not augmented."""
    step: int = 0
    """Global batch, counted from 0 at the start of training, or of the evaluation of another split."""
    rank: int = 0
    """Rank whose images of the batch to draw."""
    world: int = 1
    """World size; 1: the whole global batch, in its order."""
    images: int = 64
    """Maximum number of images on the picture; the list has all."""
    out: Path = Path("batch.png")
    """PNG file to write."""
    json: bool = False
    """Print a JSON list instead of lines."""
    stage_to: NotAnOption[Path | None] = None
    max_bad: NotAnOption[float] = 1.0
    """A run stops if too many images do not decode; looking at its batches is how to find them, so this does not."""

    @classmethod
    def from_arguments(cls, program: str, arguments: Sequence[str]) -> ShowBatchConfig:
        """The options on a command line, where several --data are one mixture."""
        settings = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
        found: ShowBatchConfig = parse(cls, program, joined(arguments), config=settings)
        return found

    def check(self) -> None:
        """Raises UserError for what cannot work, with the run's options where there is a run."""
        for name in ("world", "images"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)} must be positive")
        if self.step < 0:
            raise UserError(f"--step {self.step}: steps are counted from 0")
        if not 0 <= self.rank < self.world:
            raise UserError(f"--rank {self.rank}: --world {self.world} has ranks 0 to {self.world - 1}")
        check_file(self.out, ".png")
        options = self.resolved()
        BatchConfig.check(options)
        packs = read_packs(options.data)
        if self.split != "train" and len(packs) > 1:
            raise UserError(f"--split {self.split} is of one data set: name one of {options.data} with --data")
        for pack in packs:
            pack.manifest.split(self.split)

    def resolved(self) -> ShowBatchConfig:
        """These options with the run's in place of those it decides.

        Raises UserError if an option contradicts the run, if its config.json cannot be used, or if its data set or its
        augmentation is no longer there.
        """
        if self.run is None:
            return self
        trained, augmentation = run_options(self.run)
        of_run = {name: getattr(trained, name) for name in (*DECIDES, "data", "backend")}
        given = {name for name in of_run if getattr(self, name) != getattr(BatchConfig, name)}
        for name in DECIDES:
            if name in given and getattr(self, name) != of_run[name]:
                option = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise UserError(f"{option} contradicts {self.run}, which has {of_run[name]}: leave one of the two out")
        if augmentation_of(trained.augment) != augmentation:
            raise UserError(
                f"the augmentation {trained.augment} is not what it was when {self.run} was trained: put it back"
            )
        if "data" not in given and not is_there(trained.data):
            if not is_there(self.data):
                raise UserError(f"{trained.data}, the data of {self.run}, is not there: say with --data where it is")
            given.add("data")
        return replace(self, **{name: value for name, value in of_run.items() if name not in given})


def is_there(data: Path) -> bool:
    """Whether all data sets that --data names are there."""
    return all((place.root / MANIFEST).is_file() for place in places_of(data))


def augmentation_of(augment: str) -> Any:
    """The fields of an augmentation, as a run's config.json has them."""
    return json.loads(json.dumps(asdict(read_augmentation(augment))))


def run_options(run: Path) -> tuple[BatchConfig, Any]:
    """What decides a run's batches, by its config.json: its options, and its augmentation as JSON has it."""
    content = read_config(run)
    return restored_part(BatchConfig, content, run / CONFIG_JSON, AGAIN), content.get("augmentation")


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.json; UserError if there is none, or if it is damaged."""
    return read_json(run / CONFIG_JSON, "name the directory of a run, as runs/train", AGAIN)


class ShowBatch(Command[ShowBatchConfig]):
    """Drawing a batch."""

    def data(self, options: ShowBatchConfig) -> Path | None:
        return only_one(options.data)


COMMANDS = (
    ShowBatch(
        name="show-batch",
        summary="draw any batch of any run as a labelled picture",
        options=ShowBatchConfig,
        work="hpcgender.show_batch:show_batch",
    ),
)
