"""The learning rate as a pure function of the step. Imports no torch."""

from __future__ import annotations

import math

from hpcgender.commands.train import TrainConfig

ONE_CYCLE_START = 25.0
"""One-cycle begins at a 25th of the highest rate (as torch's OneCycleLR does) ..."""
ONE_CYCLE_END = 1e4
"""... and ends at a 10,000th of where it began."""


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from the start of training.

    `cosine`: arXiv 1608.03983 without restarts. `onecycle`: arXiv 1708.07120, in OneCycleLR's form with half cosines;
    its warm-up is the rising half, and momentum stays as it is. The others rise linearly (arXiv 1706.02677).
    """
    warmup = config.warmup * steps_per_epoch
    epoch = step / steps_per_epoch
    if config.schedule == "onecycle":
        return one_cycle(config.peak_lr, step, warmup, config.epochs * steps_per_epoch)
    if step < warmup:
        return config.peak_lr * (step + 1) / math.ceil(warmup)
    if config.schedule == "step":
        return config.peak_lr * config.decay_factor ** (int(epoch) // config.decay_every)
    left = (config.epochs - epoch) / max(config.epochs - config.warmup, 1e-9)
    return between(0.0, config.peak_lr, left)


def one_cycle(peak: float, step: int, warmup: float, steps: int) -> float:
    """From peak / 25 up to `peak` at the last of `warmup` steps, then down to peak / 250,000 at the last of `steps`."""
    begin, top = peak / ONE_CYCLE_START, warmup - 1
    if step < top:
        return between(begin, peak, step / top)
    return between(peak, begin / ONE_CYCLE_END, (step - top) / max(steps - 1 - top, 1.0))


def between(start: float, end: float, way: float) -> float:
    """From `start` at way 0 along half a cosine to `end` at way 1."""
    return start + (end - start) * (1 - math.cos(math.pi * way)) / 2
