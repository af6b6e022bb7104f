"""Loads one batch as a rank of a run got it, draws it, and lists its images."""

from __future__ import annotations

import io
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hpcgender.commands.show_batch import ShowBatchConfig
from hpcgender.data.decoders import to_pixels
from hpcgender.data.loader import Loader, evaluation_loader, training_loader
from hpcgender.distributed import Ranks, process_group
from hpcgender.show_batch.sheet import Pixels, draw_sheet
from hpcgender.show_batch.shown import Shown, describe, table
from shard_tools.base.errors import UserError
from shard_tools.inspect.inspection import write_file
from shard_tools.inspect.statistics import printable
from shard_tools.manifest import Manifest, read_manifest


def show_batch(config: ShowBatchConfig) -> None:
    """Draws the batch that `config` names into `config.out` and prints a line for each of its images."""
    config = config.resolved()
    config.check()
    manifest = read_manifest(config.data)
    if config.run:
        check_trained_on(config.run, manifest)
    with process_group() as here:
        ranks = Ranks(config.rank, config.world, here.device)
        with closing(open_loader(config, manifest, ranks)) as loader:
            epoch, step = divmod(config.step, len(loader))
            if epoch and config.split != "train":
                raise UserError(f"--step {config.step}: {config.split} has steps 0 to {len(loader) - 1}")
            images, shown = load(config, manifest, loader, epoch, step)
            lines = [printable(line) for line in facts(config, ranks, epoch, step, len(loader), len(shown))]
    title = printable(heading(config, manifest))
    buffer = io.BytesIO()
    draw_sheet(images, shown[: len(images)], title, lines).save(buffer, "PNG")
    write_file(config.out, buffer.getvalue())
    if config.json:
        print(json.dumps([asdict(image) for image in shown], indent=1))
        return
    print("\n".join((title, *lines, "", *table(shown), "", f"sheet: {config.out}")))


def check_trained_on(run: Path, manifest: Manifest) -> None:
    """Raises UserError if the run was trained on other data."""
    if json.loads((run / "config.json").read_text()).get("manifest") != manifest.sha256:
        raise UserError(f"{run} was trained on other data than {manifest.root}: say with --data where its own is")


def open_loader(config: ShowBatchConfig, manifest: Manifest, ranks: Ranks) -> Loader:
    """The loader of training for its split, that of evaluation for another one."""
    if config.split == "train":
        return training_loader(config, manifest, ranks)
    return evaluation_loader(
        config, manifest, config.split, batch_size=config.batch_size, image_size=config.image_size, ranks=ranks
    )


def load(
    config: ShowBatchConfig, manifest: Manifest, loader: Loader, epoch: int, step: int
) -> tuple[Pixels, list[Shown]]:
    """The first pixels of the batch (at most config.images, size, size, 3), and what is known of all its images."""
    positions, planned = next(loader.plan(loader.order(epoch), step))
    with closing(loader.epoch(epoch, step)) as batches:
        batch = next(batches, None)
        if batch and config.split != "train":  # where an image that does not decode is left out, not replaced
            positions = positions[np.isin(planned.samples, batch.samples)]
        if batch is None or not len(positions):
            raise UserError(
                f"rank {config.rank} of {config.world} has no image at --step {config.step} of {config.split}: "
                "look at another --rank or --step"
            )
        pixels: Pixels = to_pixels(batch.images[: config.images]).permute(0, 2, 3, 1).cpu().numpy()
    places = positions - step * config.batch_size
    draws = loader.draws(epoch, batch.samples)
    return pixels, describe(manifest, config.split, loader.index, places, batch.samples, draws)


def heading(config: ShowBatchConfig, manifest: Manifest) -> str:
    """The data set, and which part of which batch."""
    rank = f", rank {config.rank} of {config.world}" if config.world > 1 else ""
    return f"{manifest.root.resolve().name}: {config.split}, step {config.step}{rank}"


def facts(config: ShowBatchConfig, ranks: Ranks, epoch: int, step: int, steps: int, images: int) -> list[str]:
    """Lines that say what decided the batch, and how many of its images are on the sheet."""
    batch = f"batch of {config.batch_size}, {config.image_size} px, {config.backend} on {ranks.device.type}"
    if config.split == "train":
        weights = f" {', '.join(f'{weight:g}' for weight in config.class_weights)}" if config.class_weights else ""
        lines = [
            f"epoch {epoch}, which the log calls {epoch + 1}, and its step {step} of {steps}, counted from 0",
            f"seed {config.seed}, sampling {config.sampling}{weights}, augmentation {config.augment}",
            f"{batch}, window {config.window_mb} MB, last batch: {config.last_batch}",
        ]
    else:
        lines = [f"step {step} of {steps}, counted from 0, as evaluation sees it", batch]
    counted = "1 image" if images == 1 else f"{images} images"
    if images > config.images:
        counted += f", of which the first {config.images} are drawn; --images {images} draws all"
    return [*lines, f"{counted}; options of {config.run}" if config.run else counted]
