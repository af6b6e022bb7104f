"""TensorBoard: event files in the run's directory."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter

from hpcgender.trackers.tracker import Point, TrackedRun


class TensorBoard:
    """Each attempt has a file; of an earlier one the points after the checkpoint are dropped."""

    def __init__(self, run: TrackedRun) -> None:
        # Points from purge_step on are dropped, and the last epoch that is kept may have ended at `run.step`.
        self.board = SummaryWriter(str(run.directory / "tensorboard"), purge_step=run.step + 1)
        self.board.flush()

    def write(self, point: Point) -> None:
        for name, value in point.values.items():
            self.board.add_scalar(name, value, point.step)
        self.board.flush()

    def close(self, finished: bool) -> None:
        self.board.close()
