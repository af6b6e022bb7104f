"""The predictions of every image of a split, by all ranks together, resumed where an earlier start was killed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.loader import Batch
from hpcgender.evaluate.predictions import Predictions, from_index
from hpcgender.inference.blocks import Rows, read_rows
from hpcgender.inference.engine import blocks_of, check_bad, run_pass
from hpcgender.inference.facts import WORK
from hpcgender.inference.outputs import log_odds, outputs_of
from hpcgender.inference.progress import Progress
from hpcgender.inference.session import Session

NAMES = ("log_odds", "age")


class SplitPass:
    """A pass over a split. Every rank must create and run it together with the others."""

    shape: tuple[int, ...] = ()
    """Of an image's log-odds, and of its age."""

    def __init__(self, session: Session[EvaluateConfig], split: str, name: str = "", **origin: Any) -> None:
        """`name` is the pass's, by default that of the split; `origin` has what its results are of besides."""
        self.session, self.split = session, split
        self.blocks = blocks_of(session, split)
        self.directory = session.config.out_dir / WORK / (name or split)
        origin = {**session.config.origin(split), **origin}
        self.progress = Progress(self.directory, self.directory.parent, self.blocks, session.ranks, origin, anew=False)
        self.computed = len(self.blocks.samples) - self.progress.images_there
        """Images that this start has to compute, on all ranks."""

    def run(self) -> None:
        """Computes what is missing, unless a stop is requested before the end."""
        shapes = dict.fromkeys(NAMES, self.shape)
        if run_pass(self.session, self.split, self.progress, shapes, self.work):
            self.progress.finish()

    def work(self, batch: Batch) -> Rows:
        """Log-odds and ages of a batch; with --flip their means with the mirror images'."""
        return self.rows(batch.images)

    def rows(self, images: torch.Tensor) -> Rows:
        """The same of a batch's images."""
        rows = self.outputs(images)
        if self.session.config.flip:
            mirrored = self.outputs(images.flip(3))
            rows = {name: (values + mirrored[name]) / 2 for name, values in rows.items()}
        return {name: values.cpu().numpy() for name, values in rows.items()}

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """float32 (n,) each, of the model's tasks."""
        outputs = outputs_of(self.session.trained.model, images, self.session.precision)
        rows = {}
        if outputs.gender is not None:
            rows["log_odds"] = log_odds(outputs.gender)
        if outputs.age is not None:
            rows["age"] = outputs.age.float()
        return rows

    def predictions(self) -> Predictions:
        """All ranks' results, on rank 0 after the end of the pass; UserError if too many images do not decode."""
        values = np.stack([read_rows(self.directory, self.blocks, name, self.blocks.samples) for name in NAMES], 1)
        check_bad(self.session, self.split, np.isnan(values[:, 0]) & np.isnan(values[:, 1]))
        manifest = self.session.manifest
        files = [shard.file for shard in manifest.split(self.split).shards]
        return from_index(manifest.index(self.split), files, values)
