"""Progress within an epoch: a live bar on a terminal, a line every ten minutes in a job's log; and its time."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from hpcgender.log_lines import StepLine

BAR_EVERY_S = 1.0
LINE_EVERY_S = 600.0


class StepClock:
    """The time that the steps of an epoch take; a context manager around those of one attempt.

    `before` are the seconds of the epoch's steps in earlier attempts.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._began: float | None = None
        self._measured = 0.0

    def __enter__(self) -> StepClock:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._measured, self._began = self.measured, None

    @property
    def measured(self) -> float:
        """Seconds of the steps of this attempt, until now."""
        return self._measured + (time.perf_counter() - self._began if self._began is not None else 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of all steps of the epoch, until now."""
        return self._before + self.measured


class EpochProgress:
    """Shows the progress of an epoch, on stderr if that is a terminal, otherwise on stdout; a context manager.

    Most steps only read the clock; the device is synchronised for the loss only when progress is shown. Every rank has
    one: other ranks than the first write to files. `epoch` counts from 1, `batch_size` is the global one, and
    `first_step` is the first step of a resumed epoch.
    """

    def __init__(
        self,
        epoch: int,
        epochs: int,
        steps: int,
        batch_size: int,
        *,
        first_step: int = 0,
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        self.epoch = epoch
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.bar: Progress | None = None
        self.every_s = line_every_s
        if sys.stderr.isatty():
            self.every_s = BAR_EVERY_S
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[measured]}"),
                console=Console(stderr=True),
                auto_refresh=False,  # a drawing thread would slow down the steps
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self.task = self.bar.add_task(f"epoch {epoch}/{epochs}", total=steps, completed=first_step, measured="")
        self.last_step = first_step
        self.last_at = time.monotonic()

    def __enter__(self) -> EpochProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, step: int, loss: torch.Tensor) -> None:
        """Shows progress if it is time: `step` steps of the epoch are done, the last with `loss`, a scalar tensor."""
        now = time.monotonic()
        passed = now - self.last_at
        if passed <= self.every_s:
            return
        rate = (step - self.last_step) / passed
        line = StepLine(
            step=step,
            steps=self.steps,
            epoch=self.epoch,
            epochs=self.epochs,
            loss=loss.item(),
            images_per_s=rate * self.batch_size,
            left=(self.steps - step) / rate,
        )
        if self.bar:
            self.bar.update(self.task, completed=step, measured=line.measured(), refresh=True)
        else:
            print(line.text(), flush=True)
        self.last_step, self.last_at = step, now
