"""One pass over images: each batch loaded, worked on and kept, until all are done or a stop is requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from hpcgender.cam.progress import Progress, Sums
from hpcgender.cam.shards import Rows
from hpcgender.checkpoint import Trained
from hpcgender.commands.cam import CamConfig
from hpcgender.data.loader import STAGING_TIMEOUT, Batch, evaluation_loader
from hpcgender.data.order import Samples
from hpcgender.distributed import Ranks
from hpcgender.stop import StopSignal
from shard_tools.index import Index
from shard_tools.manifest import Manifest

SAY_EVERY_S = 60.0
"""Seconds between two lines about the progress."""


@dataclass(frozen=True)
class Inputs:
    """What all passes have: options, images, a model that tells gender, the ranks, and how a stop is requested."""

    config: CamConfig
    manifest: Manifest
    index: Index
    trained: Trained
    ranks: Ranks
    stop: StopSignal


@contextmanager
def loaded(inputs: Inputs, samples: Samples, *, stage: bool = False) -> Iterator[Generator[Batch]]:
    """Batches of these images, ascending, for this rank alone; those that do not decode are left out.

    `stage`: they are so many that shards are worth copying to where --stage-to says.
    """
    if not len(samples):
        nothing: tuple[Batch, ...] = ()
        yield (batch for batch in nothing)
        return
    loader = evaluation_loader(
        inputs.config if stage else replace(inputs.config, stage_to=None),
        inputs.manifest,
        inputs.config.split,
        batch_size=inputs.config.batch_size,
        image_size=inputs.trained.image_size,
        ranks=replace(inputs.ranks, rank=0, world_size=1),
        samples=samples,
    )
    with closing(loader), closing(loader.epoch(0)) as batches:
        yield batches


def run_pass(
    inputs: Inputs,
    progress: Progress,
    shapes: dict[str, tuple[int, ...]],
    work: Callable[[Batch], Rows],
    sums: Callable[[], Sums] = dict,
    *,
    stage: bool = False,
) -> bool:
    """Does what is missing of a pass; False if a stop was requested before the end. What is done is saved.

    `work` gives the results of a batch by name, float32 (n, *shapes[name]) each; images that do not decode have nan.
    `sums` gives integers that it summed over all images so far.
    """
    plan = progress.plan
    pending = deque(progress.missing)

    def keep(batch: Batch | None) -> None:
        number = pending.popleft()
        samples = plan.batch(number)
        rows = {name: np.full((len(samples), *shape), np.nan, dtype=np.float32) for name, shape in shapes.items()}
        if batch:
            places = np.searchsorted(samples, batch.samples)
            for name, values in work(batch).items():
                rows[name][places] = values
        progress.add(number, rows)

    own = [plan.batch(number) for number in progress.missing]
    with loaded(inputs, np.concatenate(own) if own else np.empty(0, dtype=np.int64), stage=stage) as batches:
        if stage and inputs.config.stage_to:
            inputs.ranks.barrier(STAGING_TIMEOUT)
        say = Speaker(inputs, progress)
        for batch in inputs.stop.until_requested(batches, progress.steps, inputs.ranks):
            while plan.place(batch.samples[:1])[0] // plan.batch_size != pending[0]:
                keep(None)  # nothing of a batch before it decodes
            keep(batch)
            if progress.is_due:
                progress.sums = sums()
                progress.save()
            say()
    while pending and not inputs.stop.reason:
        keep(None)
    if progress.done:
        progress.sums = sums()
        progress.save()
    return not inputs.stop.reason


class Speaker:
    """Says once a minute, on rank 0, how far the pass is."""

    def __init__(self, inputs: Inputs, progress: Progress) -> None:
        self.inputs, self.progress = inputs, progress
        self.began = self.said = time.monotonic()
        self.images = len(progress.plan.samples)
        if inputs.ranks.is_first and 0 < progress.images_there < self.images:
            print(f"going on: {progress.images_there} of {self.images} {progress.name} are there")

    def __call__(self) -> None:
        now = time.monotonic()
        if not self.inputs.ranks.is_first or now - self.said < SAY_EVERY_S:
            return
        self.said = now
        steps = len(self.progress.done)
        done = min(steps * self.progress.plan.batch_size * self.inputs.ranks.world_size, self.images)
        left = (now - self.began) / steps * (self.progress.steps - steps)
        print(
            f"{self.progress.name}: {self.progress.images_there + done} of {self.images}, "
            f"{done / (now - self.began):.0f} img/s, {left / 60:.0f} min left",
            flush=True,
        )
