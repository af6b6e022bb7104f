"""Draws one batch as a rank of a run had it, pixel for pixel, and lists its images with their augmentation."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcgender.commands.show_batch import ShowBatchConfig, read_config
from hpcgender.data.augment import Draws, centred
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.loader import Loader
from hpcgender.data.order import Samples
from hpcgender.data.packs import Pack, identity, manifests_in, names_of, read_packs
from hpcgender.data.split_images import SplitImages
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks, select_device
from shard_tools.base.errors import UserError
from shard_tools.base.files import write_file
from shard_tools.base.sheet import Card, draw_sheet
from shard_tools.base.text import Table, plural, printable, text_of
from shard_tools.inspect.faces import years
from shard_tools.inspect.statistics import UNKNOWN, text

MEANING = {
    "size": "height and width of the crop, as fractions of the image's shorter side",
    "corner": "where the crop lies, from 0 (top, left) to 1 (bottom, right)",
    "mirror": "1 for a horizontal flip",
    "angle": "degrees of the rotation, counter-clockwise",
    "colour": "factors of brightness, contrast and saturation, and the rotation of the hue in degrees",
    "sigma": "standard deviation of the blur, pixels",
    "erase": "top, left, height and width of the erased rectangle, as fractions of the picture's side",
}
"""Of the fields of `Draws`."""

SIDE = 192
"""Pixels that a picture's side is near to: each pixel of it is drawn as a square of one, two, ... pixels."""
ROOM = 900
"""Smallest width of the sheet between its margins, for the lines above the images."""
LINE_WIDTH = 1000
"""Of the list: no cell is cut."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """One image of a batch."""

    place: int
    """In the global batch, from 0: rank r of W has the places r, r + W, r + 2 W, ..."""
    sample: int
    """Its number in the index."""
    key: str
    file: str
    """Its shard, within the data set; of a mixture after the data set's name."""
    label: int
    """-1 unknown."""
    gender: str
    """The label's class."""
    age: float
    """Years, -1 unknown."""
    group: str
    subject: str
    augmentation: dict[str, Any]
    """The fields of its `Draws`, a number or a list of numbers each."""


def show_batch(config: ShowBatchConfig) -> None:
    """Draws the batch that `config` names into `config.out` and prints a line for each of its images."""
    config = config.resolved()
    config.check()
    packs = read_packs(config.data)
    if config.run:
        check_trained_on(config, packs)
    ranks = Ranks(config.rank, config.world, select_device())
    with closing(open_loader(config, packs, ranks)) as loader:
        epoch, step = divmod(config.step, len(loader))
        if epoch and config.split != "train":
            raise UserError(f"--step {config.step}: {config.split} has steps 0 to {len(loader) - 1}")
        images, shown = load(config, loader, epoch, step)
        lines = [printable(line) for line in facts(config, ranks, epoch, step, len(loader), len(shown))]
    title = printable(heading(config, packs))
    buffer = io.BytesIO()
    draw_sheet([cards(images, shown)], title, lines, ROOM).save(buffer, "PNG")
    write_file(config.out, buffer.getvalue())
    if config.json:
        print(json.dumps([asdict(image) for image in shown], indent=1))
        return
    print("\n".join((title, *lines, "", *listing(shown), "", f"sheet: {config.out}")))


def check_trained_on(config: ShowBatchConfig, packs: Sequence[Pack]) -> None:
    """Raises UserError if the run was trained on another data set."""
    assert config.run
    trained_on = read_config(config.run).get("manifest")
    one_of_them = config.split != "train" and packs[0].manifest.sha256 in manifests_in(str(trained_on))
    if trained_on != identity(packs) and not one_of_them:
        raise UserError(
            f"{config.run} was trained on another data set than {config.data}: say with --data where its own is"
        )


def open_loader(config: ShowBatchConfig, packs: Sequence[Pack], ranks: Ranks) -> Loader:
    """The loader of training for its split, that of evaluation for another one."""
    if config.split == "train":
        return TrainingLoader(config, packs, ranks)
    return EvaluationLoader(
        config, packs[0].manifest, config.split, batch_size=config.batch_size, image_size=config.image_size, ranks=ranks
    )


def load(config: ShowBatchConfig, loader: Loader, epoch: int, step: int) -> tuple[Pixels, list[Shown]]:
    """The first pixels of the batch (at most config.images, size, size, 3), and what is known of all its images."""
    positions, planned, _ = next(loader.plan(loader.order(epoch), step))
    passes = planned.passes
    with closing(loader.epoch(epoch, step)) as batches:
        batch = next(batches, None)
        if batch and config.split != "train":  # where an image that does not decode is left out, not replaced
            there = np.isin(planned.samples, batch.samples)
            positions, passes = positions[there], passes[there]
        if batch is None or not len(positions):
            raise UserError(
                f"rank {config.rank} of {config.world} has no image at --step {config.step} of {config.split}: "
                "look at another --rank or --step"
            )
        pixels: Pixels = to_pixels(batch.images[: config.images]).permute(0, 2, 3, 1).cpu().numpy()
    places = positions - step * config.batch_size
    return pixels, describe(loader.images, places, batch.samples, loader.draws(batch.samples, passes))


def describe(images: SplitImages, places: Samples, samples: Samples, draws: Draws) -> list[Shown]:
    """What is known of the samples (n,) at some places (n,) of a batch, and of their n draws."""
    columns = {field.name: getattr(draws, field.name).tolist() for field in fields(draws)}
    shown = []
    for number, (place, sample) in enumerate(zip(places.tolist(), samples.tolist(), strict=True)):
        row = images.row(sample)
        label = int(row["gender"])
        shown.append(
            Shown(
                place=place,
                sample=sample,
                key=text(row["key"]),
                file=images.file(sample),
                label=label,
                gender=images.manifests[0].classes[label] if label >= 0 else UNKNOWN,
                age=round(float(row["age"]), 3),
                group=text(row["group"]),
                subject=text(row["subject"]),
                augmentation={name: values[number] for name, values in columns.items()},
            )
        )
    return shown


def heading(config: ShowBatchConfig, packs: Sequence[Pack]) -> str:
    """The data sets, split, step and rank."""
    rank = f", rank {config.rank} of {config.world}" if config.world > 1 else ""
    return f"{' and '.join(names_of(packs))}: {config.split}, step {config.step}{rank}"


def facts(config: ShowBatchConfig, ranks: Ranks, epoch: int, step: int, steps: int, images: int) -> list[str]:
    """Lines with the options that decided the batch, and how many of its images are on the sheet."""
    batch = f"batch of {config.batch_size}, {config.image_size} px, {config.backend} on {ranks.device.type}"
    if config.split == "train":
        weights = (
            f" {', '.join(f'{weight:g}' for weight in config.sampling_weights)}" if config.sampling_weights else ""
        )
        lines = [
            f"epoch {epoch} ({epoch + 1} in the log), its step {step} of {steps}, counted from 0",
            f"seed {config.seed}, sampling {config.sampling}{weights}, augmentation {config.augment}",
            f"{batch}, window {config.window_mb} MB, last batch: {config.last_batch}",
        ]
    else:
        lines = [f"step {step} of {steps}, counted from 0, as in evaluation", batch]
    counted = plural(images, "image")
    if images > config.images:
        counted = f"the first {config.images} of {counted}; --images {images} draws all"
    return [*lines, f"{counted}; options of {config.run}" if config.run else counted]


def magnification(image_size: int) -> int:
    """Pixels of the sheet, per side, for one of the image."""
    return max(round(SIDE / image_size), 1)


def cards(images: Pixels, shown: Sequence[Shown]) -> list[Card]:
    """The cards of the first images (n, size, size, 3) of a batch."""
    side = images.shape[1] * magnification(images.shape[1])
    shown = shown[: len(images)]
    with_age, with_group = (any(values) for values in zip(*((i.age >= 0, i.group) for i in shown), strict=True))
    return [
        Card(
            Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST),
            image.label,
            image.gender,
            years(image.age) if with_age else "",
            (
                *([image.group or "group unknown"] if with_group else []),
                image.key,
                f"sample {image.sample}, place {image.place}",
            ),
        )
        for pixels, image in zip(images, shown, strict=True)
    ]


def listing(shown: Sequence[Shown]) -> list[str]:
    """A table of the images with their labels and their `Draws`, and what the fields of those mean.

    A field is - where it changes nothing in the image, and has no column where it changes none of them.
    """
    plain = {field.name: getattr(centred(1), field.name)[0].tolist() for field in fields(Draws)}
    drawn = [name for name, value in plain.items() if any(image.augmentation[name] != value for image in shown)]
    rows = tuple(
        (
            str(image.place),
            str(image.sample),
            image.key,
            image.gender,
            image.file,
            *("-" if image.augmentation[name] == plain[name] else numbers(image.augmentation[name]) for name in drawn),
        )
        for image in shown
    )
    columns = ("place", "sample", "key", "gender", "file", *drawn)
    lines = text_of([Table(columns, rows, left=frozenset(columns[2:]))], width=LINE_WIDTH).split("\n")
    return [*lines, "", *(f"{name}: {MEANING[name]}" for name in drawn)] if drawn else lines


def numbers(value: Any) -> str:
    """A number, or several joined by commas."""
    if isinstance(value, list):
        return ",".join(map(numbers, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)
