"""Trackers in threads of their own: one that fails, hangs or is slow neither ends a training nor delays its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from hpcgender.trackers.names import TrackerName
from hpcgender.trackers.tracker import Point, TrackedRun, Tracker
from shard_tools.base.errors import one_line

PATIENCE = 30.0
"""Seconds at the end of a training for which it waits for all trackers."""


def open_tracker(name: TrackerName, run: TrackedRun) -> Tracker:
    """The tracker of that name; raises whatever its package does."""
    if name == "mlflow":
        from hpcgender.trackers.mlflow import MLflow

        return MLflow(run)
    from hpcgender.trackers.wandb import WandB

    return WandB(run)


class Following:
    """Hands the points of a run to a tracker. If that fails, a line says so, and later points are dropped."""

    def __init__(self, name: str, open_it: Callable[[], Tracker]) -> None:
        self.name = name
        self.open_it = open_it
        self.waiting: SimpleQueue[Point | bool] = SimpleQueue()
        """Points, and at the end whether the run is finished."""
        self.ended = False
        """Whether the tracker has failed, or was given up."""
        self.thread = Thread(target=self.follow, name=f"track {name}", daemon=True)
        self.thread.start()

    def follow(self) -> None:
        try:
            tracker = self.open_it()
            while not isinstance(what := self.waiting.get(), bool):
                tracker.write(what)
            tracker.close(what)
        except BaseException as error:  # also SystemExit, which packages raise
            self.give_up(one_line(error))

    def give_up(self, why: str) -> None:
        if not self.ended:
            self.ended = True
            print(f"WARNING: {self.name} gets no more metrics of this run ({why}): training goes on", flush=True)

    def write(self, point: Point) -> None:
        """Has the tracker take a point, some time."""
        if not self.ended:
            self.waiting.put(point)


def close_all(followings: Sequence[Following], *, finished: bool, patience: float = PATIENCE) -> None:
    """Has all trackers take what is left and close; those that have not by then are left alone."""
    end = time.monotonic() + patience
    for following in followings:
        following.waiting.put(finished)
    for following in followings:
        following.thread.join(max(0.0, end - time.monotonic()))
        if following.thread.is_alive():
            following.give_up(f"it has not answered for {patience:g} s at the end")
