"""Weights & Biases, offline: files in the run's directory, which only `wandb sync` sends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hpcgender.trackers.tracker import Point, TrackedRun


class WandB:
    """Each attempt writes all points of the run anew, under the id of the run, and removes those of attempts before.

    An offline run cannot be continued, and several with one id would overwrite each other on the server.
    """

    def __init__(self, run: TrackedRun) -> None:
        # From its import on it would report its own errors.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        files = run.directory.resolve() / "wandb"
        files.mkdir(exist_ok=True)  # where it cannot be, W&B would write to a temporary directory
        self.run = wandb.init(
            dir=files.parent,
            id=run.id,
            name=run.directory.name,
            project=os.environ.get("WANDB_PROJECT", "hpcgender"),
            config=dict(run.options),
            mode="offline",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        for point in run.past:
            self.write(point)
        mine = Path(self.run.dir).parent
        for other in files.glob(f"offline-run-*-{run.id}"):
            if other != mine:
                shutil.rmtree(other)

    def write(self, point: Point) -> None:
        self.run.log(dict(point.values), step=point.step)

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
